{{/* What several templates name. */}}

{{- define "millpond.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "millpond.labels" -}}
app.kubernetes.io/name: millpond
app.kubernetes.io/part-of: millpond
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "millpond.monitors" -}}
{{- if eq (toString .Values.monitoring.podMonitors) "auto" -}}
{{- if .Capabilities.APIVersions.Has "monitoring.coreos.com/v1" }}true{{ end -}}
{{- else if .Values.monitoring.podMonitors }}true{{ end -}}
{{- end }}

{{/* The pod security standard "restricted": the controller's, and what the controller gives its workers. */}}
{{- define "millpond.restrictedPod" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}
{{- define "millpond.restrictedContainer" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
