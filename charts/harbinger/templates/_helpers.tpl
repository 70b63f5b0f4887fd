{{- define "harbinger.fullname" -}}
{{- if contains "harbinger" .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-harbinger" .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "harbinger.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "harbinger.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is required when serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "harbinger.secretName" -}}
{{- default (printf "%s-webhook-tls" (include "harbinger.fullname" .)) .Values.certificates.secretName -}}
{{- end -}}

{{- define "harbinger.selectorLabels" -}}
app.kubernetes.io/name: harbinger
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "harbinger.labels" -}}
{{ include "harbinger.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "harbinger.excludedNamespaces" -}}
{{- append .Values.webhook.excludedNamespaces .Release.Namespace | uniq | join "," -}}
{{- end -}}

{{- define "harbinger.image" -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}

{{- define "harbinger.env" -}}
# Milliseconds after which freed memory goes back to the kernel: both processes work in bursts.
- {name: MIMALLOC_PURGE_DELAY, value: "10"}
{{- end -}}

{{- define "harbinger.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}
