{{- define "polarvec.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "polarvec.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "polarvec.labels" -}}
{{ include "polarvec.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* The settings that all containers of the pod share: they must agree on models, cache and address. */}}
{{- define "polarvec.environment" -}}
{{- $folders := list -}}
{{- range .Values.models.folders }}{{- $folders = append $folders (printf "/models/%s" .) -}}{{- end }}
- { name: POLARVEC_MODEL, value: {{ join "," $folders | quote }} }
- { name: POLARVEC_ENGINE, value: {{ .Values.engine | quote }} }
- { name: POLARVEC_PRECISION, value: {{ .Values.precision | quote }} }
- { name: POLARVEC_CACHE_DIR, value: /prepared/cache }
- { name: POLARVEC_ENGINE_CACHE_DIR, value: {{ ternary "/engines" "none" (eq (include "polarvec.engineCache" .) "yes") | quote }} }
{{- if .Values.triton.gpus }}
- { name: POLARVEC_GPUS, value: {{ untilStep 0 (int .Values.triton.gpus) 1 | join "," | quote }} }
{{- end }}
- { name: POLARVEC_TRITON_TARGET, value: "unix:/run/triton/grpc:0" }
- { name: POLARVEC_LOG_FORMAT, value: json }
{{- range $name, $value := .Values.settings }}
- { name: POLARVEC_{{ $name }}, value: {{ $value | quote }} }
{{- end }}
{{- end -}}

{{/* "yes" where the engine has weights to keep: the GPU's takes them as they are. */}}
{{- define "polarvec.engineCache" -}}
{{- if and (eq .Values.engine "openvino") .Values.triton.engineCache }}yes{{ end -}}
{{- end -}}

{{/* The GPUs belong to tritonserver alone, so they are not among the resources that `prepare` gets as well. */}}
{{- define "polarvec.tritonResources" -}}
{{- $resources := deepCopy .Values.triton.resources -}}
{{- if .Values.triton.gpus }}
{{- $resources = mustMergeOverwrite $resources (dict "limits" (dict "nvidia.com/gpu" .Values.triton.gpus)) -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{- define "polarvec.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end -}}

{{- define "polarvec.modelsMount" -}}
{ name: models, mountPath: /models, readOnly: true{{ with .Values.models.subPath }}, subPath: {{ . | quote }}{{ end }} }
{{- end -}}

{{/*
From SIGTERM to the end: NOT_SERVING and waiting, draining, 3 s in which the gateway ends its workers, then the sidecar;
10 s to spare, because whatever is left then is killed.
*/}}
{{- define "polarvec.graceSeconds" -}}
{{- add .Values.drain.delaySeconds .Values.drain.seconds 3 .Values.triton.exitSeconds 10 -}}
{{- end -}}
