{{/* The environment of the worker, and of the test that talks to the same broker and database. */}}

{{- define "feedmill-worker.secretEnv" -}}
- name: {{ index . 0 }}
  valueFrom:
    secretKeyRef: {name: {{ index . 1 | quote }}, key: {{ index . 2 | quote }}}
{{- end -}}

{{- define "feedmill-worker.backendEnv" -}}
{{- $broker := include "feedmill-worker.shared" (list . "broker") | fromYaml -}}
{{- $database := include "feedmill-worker.shared" (list . "database") | fromYaml -}}
{{- if $broker.host -}}
- name: RABBITMQ_HOST
  value: {{ $broker.host | quote }}
- name: RABBITMQ_PORT
  value: {{ int $broker.port | quote }}
- name: RABBITMQ_VHOST
  value: {{ $broker.vhost | quote }}
{{ include "feedmill-worker.secretEnv" (list "RABBITMQ_USER" $broker.existingSecret $broker.userKey) }}
{{ include "feedmill-worker.secretEnv" (list "RABBITMQ_PASSWORD" $broker.existingSecret $broker.passwordKey) }}
{{- else -}}
{{ include "feedmill-worker.secretEnv" (list "RABBITMQ_URL" $broker.existingSecret $broker.urlKey) }}
{{- end }}
{{- if $broker.ca.existingSecret }}
- name: RABBITMQ_CA_FILE
  value: /etc/feedmill/broker-ca/ca.crt
{{- end }}
{{ include "feedmill-worker.secretEnv" (list "MONGO_URI" $database.existingSecret $database.uriKey) }}
- name: DATABASE_NAME
  value: {{ $database.name | quote }}
{{- end -}}

{{- define "feedmill-worker.env" -}}
{{ include "feedmill-worker.backendEnv" . }}
- name: FEEDMILL_PROBE_PORT
  value: "8080"
- name: FEEDMILL_DRAIN_TIMEOUT_SECONDS
  value: {{ .Values.drainTimeoutSeconds | quote }}
{{- if ne .Values.snapshot.volume "none" }}
- name: FEEDMILL_INDEX_SNAPSHOT_DIR
  value: /var/lib/feedmill/snapshots
{{- end }}
{{- range $name, $value := .Values.settings }}
- name: {{ $name }}
  value: {{ include "feedmill-worker.settingText" $value | quote }}
{{- end }}
{{- if include "feedmill-worker.hasModel" . }}
- name: FEEDMILL_ROUTING_FILE
  value: /etc/feedmill/routing/routing.json
{{- if eq .Values.model.source "hub" }}
# The hub client keeps more than models: its own cache and locks.
- name: HF_HOME
  value: /models/hub
{{- if .Values.model.hub.tokenSecret }}
{{ include "feedmill-worker.secretEnv" (list "HF_TOKEN" .Values.model.hub.tokenSecret .Values.model.hub.tokenKey) }}
{{- end }}
{{- else }}
# Nothing is fetched: a model that is not there is an error at once, not after a time-out.
- name: HF_HUB_OFFLINE
  value: "1"
{{- end }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "feedmill-worker.caMounts" -}}
{{- range $name := list "broker" "database" }}
{{- if (include "feedmill-worker.shared" (list $ $name) | fromYaml).ca.existingSecret }}
- {name: {{ $name }}-ca, mountPath: /etc/feedmill/{{ $name }}-ca, readOnly: true}
{{- end }}
{{- end }}
{{- end -}}

{{/* Whole folders, no subPath: the kubelet then follows a renewed Secret. */}}
{{- define "feedmill-worker.caVolumes" -}}
{{- range $name := list "broker" "database" }}
{{- $ca := (include "feedmill-worker.shared" (list $ $name) | fromYaml).ca }}
{{- if $ca.existingSecret }}
- name: {{ $name }}-ca
  secret:
    secretName: {{ $ca.existingSecret | quote }}
    items: [{key: {{ $ca.key | quote }}, path: ca.crt}]
{{- end }}
{{- end }}
{{- end -}}

{{- define "feedmill-worker.snapshotVolume" -}}
{{- with .Values.snapshot }}
{{- if eq .volume "pvc" }}
- name: snapshots
  persistentVolumeClaim: {claimName: {{ .claimName | quote }}}
{{- else if eq .volume "emptyDir" }}
- name: snapshots
  emptyDir: {sizeLimit: {{ .sizeLimit }}}
{{- end }}
{{- end }}
{{- end -}}

{{- define "feedmill-worker.modelMount" -}}
{{- if and (include "feedmill-worker.hasModel" .) (ne .Values.model.source "image") }}
- {name: model, mountPath: /models, readOnly: {{ ne .Values.model.source "hub" }}}
{{- end }}
{{- end -}}

{{- define "feedmill-worker.modelVolume" -}}
{{- if and (include "feedmill-worker.hasModel" .) (ne .Values.model.source "image") }}
- name: model
  {{- with .Values.model }}
  {{- if eq .source "pvc" }}
  persistentVolumeClaim: {claimName: {{ .pvc.claimName | quote }}, readOnly: true}
  {{- else if eq .source "ociImage" }}
  image: {reference: {{ .ociImage.reference | quote }}, pullPolicy: {{ .ociImage.pullPolicy }}}
  {{- else if .hub.cacheClaim }}
  persistentVolumeClaim: {claimName: {{ .hub.cacheClaim | quote }}}
  {{- else }}
  emptyDir: {sizeLimit: {{ .hub.cacheSizeLimit }}}
  {{- end }}
  {{- end }}
{{- end }}
{{- end -}}
