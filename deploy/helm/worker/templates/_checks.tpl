{{/* What a schema can't say: combinations of values, and what the cluster must have. Fails with the way out. */}}

{{- define "feedmill-worker.checks" -}}
{{- include "feedmill-worker.checkModel" . -}}
{{- include "feedmill-worker.checkSnapshot" . -}}
{{- include "feedmill-worker.checkAutoscaling" . -}}
{{- include "feedmill-worker.checkMonitoring" . -}}
{{- end -}}

{{- define "feedmill-worker.checkModel" -}}
{{- $model := .Values.model -}}
{{- if not (include "feedmill-worker.hasModel" .) -}}
  {{- if or (ne $model.source "image") $model.uri $model.settings -}}
    {{- fail (printf "%s: model: hint has no model; leave model.source at image, model.uri and model.settings empty" .Values.worker) -}}
  {{- end -}}
{{- else if and (eq $model.source "image") (hasPrefix "hf://" $model.uri) -}}
  {{- fail (printf "%s: model.uri: %s comes from a hub: set model.source=hub" .Values.worker $model.uri) -}}
{{- else if and (eq $model.source "hub") (not (regexMatch "^hf://[^/@]+/[^/@]+@[^@]+$" $model.uri)) -}}
  {{- fail (printf "%s: model.uri: expected hf://owner/name@revision with model.source=hub, got %q" .Values.worker $model.uri) -}}
{{- else if and (has $model.source (list "pvc" "ociImage")) $model.uri -}}
  {{- fail (printf "%s: model.uri: expected nothing with model.source=%s: name the folder in model.path" .Values.worker $model.source) -}}
{{- else if and (eq $model.source "pvc") (not $model.pvc.claimName) -}}
  {{- fail (printf "%s: model.pvc.claimName: expected the claim with the model's files" .Values.worker) -}}
{{- else if eq $model.source "ociImage" -}}
  {{- if not $model.ociImage.reference -}}
    {{- fail (printf "%s: model.ociImage.reference: expected an OCI image with the model's files" .Values.worker) -}}
  {{- end -}}
  {{- if semverCompare "<1.33.0-0" .Capabilities.KubeVersion.Version -}}
    {{- fail (printf "%s: model.source=ociImage needs Kubernetes 1.33 or newer (this is %s); set model.source to pvc or hub" .Values.worker .Capabilities.KubeVersion.Version) -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{- define "feedmill-worker.checkSnapshot" -}}
{{- $snapshot := .Values.snapshot -}}
{{- if and (ne .Values.worker "hint") (ne $snapshot.volume "none") -}}
  {{- fail (printf "%s: snapshot.volume: only hint has an index; leave it at none" .Values.worker) -}}
{{- else if and (eq $snapshot.volume "pvc") (not $snapshot.claimName) -}}
  {{- fail (printf "%s: snapshot.claimName: expected the claim for the snapshots" .Values.worker) -}}
{{- else if and (ne $snapshot.volume "pvc") $snapshot.claimName -}}
  {{- fail (printf "%s: snapshot.claimName: expected nothing with snapshot.volume=%s" .Values.worker $snapshot.volume) -}}
{{- end -}}
{{- end -}}

{{- define "feedmill-worker.checkAutoscaling" -}}
{{- $scaling := .Values.autoscaling -}}
{{- if $scaling.enabled -}}
  {{- if not (.Capabilities.APIVersions.Has "keda.sh/v1alpha1") -}}
    {{- fail (printf "%s: autoscaling.enabled: this cluster has no KEDA (API keda.sh/v1alpha1). Install it (https://keda.sh/docs/latest/deploy/), or set autoscaling.enabled=false and use kubectl scale; for `helm template` add --api-versions keda.sh/v1alpha1" .Values.worker) -}}
  {{- end -}}
  {{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) -}}
    {{- fail (printf "%s: autoscaling.minReplicas: expected at most maxReplicas (%d), got %d" .Values.worker (int $scaling.maxReplicas) (int $scaling.minReplicas)) -}}
  {{- end -}}
  {{- if not (kindIs "invalid" .Values.replicas) -}}
    {{- fail (printf "%s: replicas: expected nothing with autoscaling.enabled; use autoscaling.minReplicas and maxReplicas" .Values.worker) -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{- define "feedmill-worker.checkMonitoring" -}}
{{- $metrics := .Values.metrics -}}
{{- range $name, $kind := dict "podMonitor" "PodMonitor" "serviceMonitor" "ServiceMonitor" "prometheusRule" "PrometheusRule" -}}
  {{- if and (index $metrics $name).enabled (not ($.Capabilities.APIVersions.Has (printf "monitoring.coreos.com/v1/%s" $kind))) -}}
    {{- fail (printf "%s: metrics.%s.enabled: this cluster has no %s. Install the Prometheus operator, or leave it off; for `helm template` add --api-versions monitoring.coreos.com/v1/%s" $.Values.worker $name $kind $kind) -}}
  {{- end -}}
{{- end -}}
{{- end -}}
