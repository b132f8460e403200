{{- define "switchback.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* 50 characters, so that "-admin" and the numbers of pods fit into a name. */}}
{{- define "switchback.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "switchback.selectorLabels" -}}
app.kubernetes.io/name: {{ include "switchback.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: proxy
{{- end -}}

{{- define "switchback.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "switchback.selectorLabels" . }}
app.kubernetes.io/version: {{ default .Chart.AppVersion .Values.image.tag | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "switchback.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "switchback.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is missing; it is needed with serviceAccount.create: false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "switchback.secretName" -}}
{{- default (include "switchback.fullname" .) .Values.secrets.existing -}}
{{- end -}}

{{- define "switchback.image" -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}

{{/* Every member of etcd as a JSON list, which is TOML as well; "[]" when the state is in a file. */}}
{{- define "switchback.etcdEndpoints" -}}
{{- $endpoints := .Values.externalEtcd.endpoints -}}
{{- if .Values.etcd.enabled -}}
{{- if $endpoints -}}
{{- fail "etcd.enabled and externalEtcd.endpoints are both set, and the state is in one place; set etcd.enabled to false" -}}
{{- end -}}
{{- range $i := until (int .Values.etcd.replicas) -}}
{{- $endpoints = append $endpoints (printf "http://%[1]s-etcd-%[2]d.%[1]s-etcd.%[3]s.svc:2379" $.Release.Name $i $.Release.Namespace) -}}
{{- end -}}
{{- else if and (not $endpoints) (gt (int .Values.replicaCount) 1) -}}
{{- fail "replicaCount is above 1 without etcd, and several proxies need one state; set etcd.enabled or externalEtcd.endpoints, or replicaCount to 1" -}}
{{- else if and (not $endpoints) (not .Values.persistence.enabled) -}}
{{- fail "persistence.enabled is false without etcd, and the state would be lost with the pod; set it to true" -}}
{{- end -}}
{{- toJson $endpoints -}}
{{- end -}}

{{/* What the chart itself says in switchback.toml. Some of it needs a restart; see the annotation of the pods. */}}
{{- define "switchback.process" -}}
{{- $admin := printf "%s-admin" (include "switchback.fullname" .) -}}
{{- $hosts := list $admin (printf "%s.%s" $admin .Release.Namespace) (printf "%s.%s.svc" $admin .Release.Namespace) (printf "%s.%s.svc.cluster.local" $admin .Release.Namespace) -}}
[proxy]
listen = ["0.0.0.0:8080"]
ready_delay = "{{ int .Values.proxy.readyDelaySeconds }}s"
drain_timeout = "{{ int .Values.proxy.drainTimeoutSeconds }}s"
watch = true
handover = "off"
cookie_secret = "${SWITCHBACK_COOKIE_SECRET}"
{{- range $key, $value := .Values.proxy.settings }}
{{ $key }} = {{ toJson $value }}
{{- end }}
{{- if .Values.proxy.tls.existingSecret }}

[[proxy.tls]]
listen = "0.0.0.0:8443"
certificates = [{ cert = "/etc/switchback-tls/tls.crt", key = "/etc/switchback-tls/tls.key" }]
{{- end }}

[admin]
listen = "0.0.0.0:9900"
tokens = [
{{- range $i, $token := .Values.admin.tokens }}
  { name = {{ toJson $token.name }}, role = {{ toJson $token.role }}, sha256 = "${SWITCHBACK_TOKEN_{{ $i }}}" },
{{- end }}
]
allowed_hosts = {{ toJson (concat $hosts .Values.admin.allowedHosts) }}
{{- $endpoints := include "switchback.etcdEndpoints" . }}
{{- if ne $endpoints "[]" }}

[store]
etcd = {{ $endpoints }}
prefix = {{ toJson .Values.store.prefix }}
{{- if not .Values.etcd.enabled }}
{{- with .Values.externalEtcd }}
{{- if .tls.existingSecret }}
ca = "/etc/switchback-etcd/{{ .tls.caKey }}"
{{- if .tls.certKey }}
cert = "/etc/switchback-etcd/{{ .tls.certKey }}"
key = "/etc/switchback-etcd/{{ required "externalEtcd.tls.keyKey is missing; it is needed beside certKey" .tls.keyKey }}"
{{- end }}
{{- end }}
{{- if .auth.existingSecret }}
username = "${ETCD_USERNAME}"
password = "${ETCD_PASSWORD}"
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}
