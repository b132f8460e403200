{{/* The names of the members follow from it; Switchback's own helper writes them too. */}}
{{- define "etcd.fullname" -}}
{{- printf "%s-etcd" .Release.Name -}}
{{- end -}}

{{- define "etcd.selectorLabels" -}}
app.kubernetes.io/name: etcd
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: store
{{- end -}}

{{- define "etcd.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "etcd.selectorLabels" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* name=peer address of every member */}}
{{- define "etcd.cluster" -}}
{{- $name := include "etcd.fullname" . -}}
{{- $members := list -}}
{{- range $i := until (int .Values.replicas) -}}
{{- $members = append $members (printf "%[1]s-%[2]d=http://%[1]s-%[2]d.%[1]s.%[3]s.svc:2380" $name $i $.Release.Namespace) -}}
{{- end -}}
{{- join "," $members -}}
{{- end -}}
