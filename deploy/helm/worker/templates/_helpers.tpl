{{/* Names and labels. Template names start with the chart's own, so that no parent's or sibling's can collide. */}}

{{- define "feedmill-worker.fullname" -}}
{{- printf "%s-%s" .Release.Name .Values.worker | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "feedmill-worker.selectorLabels" -}}
app.kubernetes.io/name: feedmill
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: {{ .Values.worker }}
{{- end -}}

{{/* The worker's pods, and those that the rollout operator makes beside them: a candidate, Jobs. */}}
{{- define "feedmill-worker.selectorWithRollout" -}}
matchLabels:
  app.kubernetes.io/name: feedmill
  app.kubernetes.io/instance: {{ .Release.Name }}
matchExpressions:
  - key: app.kubernetes.io/component
    operator: In
    values: [{{ .Values.worker }}, {{ .Values.worker }}-candidate, {{ .Values.worker }}-job]
{{- end -}}

{{/* The labels that every object has; the component is the caller's. */}}
{{- define "feedmill-worker.commonLabels" -}}
app.kubernetes.io/part-of: feedmill
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "feedmill-worker-%s" .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "feedmill-worker.labels" -}}
{{ include "feedmill-worker.selectorLabels" . }}
{{ include "feedmill-worker.commonLabels" . }}
{{- end -}}

{{- define "feedmill-worker.serviceAccountName" -}}
{{- $made := .Values.serviceAccount.create | ternary (include "feedmill-worker.fullname" .) "default" -}}
{{- .Values.serviceAccount.name | default $made -}}
{{- end -}}

{{/* One group of values with the parent chart's global ones over it: (list . "broker") gives YAML. */}}
{{- define "feedmill-worker.shared" -}}
{{- $root := index . 0 -}}
{{- $name := index . 1 -}}
{{- mergeOverwrite (deepCopy (index $root.Values $name)) (index $root.Values.global $name | default dict | deepCopy) | toYaml -}}
{{- end -}}

{{- define "feedmill-worker.image" -}}
{{- $image := include "feedmill-worker.shared" (list . "image") | fromYaml -}}
{{- $repository := $image.repository | default (printf "feedmill-%s" .Values.worker) -}}
{{- $name := list (trimSuffix "/" $image.registry) $repository | compact | join "/" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $name .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name ($image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- define "feedmill-worker.pullPolicy" -}}
{{- (include "feedmill-worker.shared" (list . "image") | fromYaml).pullPolicy -}}
{{- end -}}

{{- define "feedmill-worker.imagePullSecrets" -}}
{{- with .Values.global.imagePullSecrets | default .Values.imagePullSecrets -}}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end -}}

{{- define "feedmill-worker.hasModel" -}}
{{- if ne .Values.worker "hint" -}}yes{{- end -}}
{{- end -}}

{{- define "feedmill-worker.modelUri" -}}
{{- if has .Values.model.source (list "pvc" "ociImage") -}}
{{- printf "file:///models/%s" .Values.model.path | trimSuffix "/" -}}
{{- else -}}
{{- .Values.model.uri -}}
{{- end -}}
{{- end -}}

{{/* A setting's value as a user may write it in YAML, as a string: whole numbers without an exponent. */}}
{{- define "feedmill-worker.settingText" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) -}}{{ printf "%.0f" . }}{{- else -}}{{ toString . }}{{- end -}}
{{- end -}}

{{/* The content of the model's ConfigMap; its checksum restarts the pods. */}}
{{- define "feedmill-worker.modelSettings" -}}
FEEDMILL_MODEL: {{ include "feedmill-worker.modelUri" . | quote }}
{{- if eq .Values.model.source "hub" }}
FEEDMILL_MODEL_CACHE: /models
{{- end }}
{{- range $name, $value := .Values.model.settings }}
{{ $name }}: {{ include "feedmill-worker.settingText" $value | quote }}
{{- end }}
{{- end -}}

{{- define "feedmill-worker.containerSecurityContext" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
privileged: false
readOnlyRootFilesystem: true
{{- end -}}

{{/* Seccomp and non-root are not for choice; ids are. */}}
{{- define "feedmill-worker.podSecurityContext" -}}
runAsNonRoot: true
seccompProfile:
  type: RuntimeDefault
{{- with omit .Values.podSecurityContext "runAsNonRoot" "seccompProfile" }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The input queue: a name on the wire, which feedmill.contract fixes. */}}
{{- define "feedmill-worker.queue" -}}
{{- get (dict "toxic" "toxic-detect-queue" "encode" "encode-post-queue" "hint" "hint-post-queue") .Values.worker -}}
{{- end -}}
