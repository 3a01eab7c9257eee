{{/* Template names start with the chart's own, so that no subchart's can collide. */}}

{{/* Labels of an object of this chart: (list . "component"). */}}
{{- define "feedmill.selectorLabels" -}}
app.kubernetes.io/name: feedmill
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "feedmill.labels" -}}
{{- $root := index . 0 -}}
{{ include "feedmill.selectorLabels" . }}
app.kubernetes.io/part-of: feedmill
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "feedmill-%s" $root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* The name of one of the demo's servers: (list . "rabbitmq"). */}}
{{- define "feedmill.demoName" -}}
{{- printf "%s-demo-%s" ((index . 0).Release.Name | trunc 40 | trimSuffix "-") (index . 1) -}}
{{- end -}}

{{/*
The password in a Secret of the demo that is there already, else a new one: (list . secret key). Letters and digits
only: KEDA's scaler takes no others. `helm template` has no cluster to look into, so it makes a new one each time.
*/}}
{{- define "feedmill.demoPassword" -}}
{{- $root := index . 0 -}}
{{- $secret := lookup "v1" "Secret" $root.Release.Namespace (index . 1) | default dict -}}
{{- with get (get $secret "data" | default dict) "password" -}}
{{- . | b64dec -}}
{{- else -}}
{{- randAlphaNum 24 -}}
{{- end -}}
{{- end -}}

{{- define "feedmill.demoContainerSecurityContext" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
readOnlyRootFilesystem: true
{{- end -}}

{{/* 999 is the servers' user in both images. */}}
{{- define "feedmill.demoPodSecurityContext" -}}
runAsNonRoot: true
runAsUser: 999
runAsGroup: 999
fsGroup: 999
seccompProfile:
  type: RuntimeDefault
{{- end -}}
