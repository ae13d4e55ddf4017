{{- define "scopeward.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 43 | trimSuffix "-" }}
{{- end }}

{{- /* At most 43 characters: the longest suffix is "-headless", and a pod adds its number and a hash of 10 to a label of 63. */}}
{{- define "scopeward.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 43 | trimSuffix "-" }}
{{- else if contains (include "scopeward.name" .) .Release.Name }}
{{- .Release.Name | trunc 43 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "scopeward.name" .) | trunc 43 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "scopeward.headless" -}}
{{- include "scopeward.fullname" . }}-headless
{{- end }}

{{- define "scopeward.selectorLabels" -}}
app.kubernetes.io/name: {{ include "scopeward.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "scopeward.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "scopeward.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "scopeward.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "scopeward.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "scopeward.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{- /* "tls" where the server has a certificate, else empty. */}}
{{- define "scopeward.tls" -}}
{{- if not .Values.tls.insecurePlaintext }}tls{{ end }}
{{- end }}

{{- define "scopeward.bind" -}}
{{- if contains ":" .Values.bindAddress }}{{ printf "[%s]" .Values.bindAddress }}{{ else }}{{ .Values.bindAddress }}{{ end }}
{{- end }}

{{- /* The volume of the client CAs, if they have one of their own. */}}
{{- define "scopeward.clientCa" -}}
{{- with .Values.tls.clientCa }}
{{- if .existingSecret -}}
secret:
  secretName: {{ .existingSecret }}
  defaultMode: 288
{{- else if .existingConfigMap -}}
configMap:
  name: {{ .existingConfigMap }}
{{- end }}
{{- end }}
{{- end }}

{{- /* The URL of the joined store, with who issues its certificate. */}}
{{- define "scopeward.auditForward" -}}
{{- .url }}
{{- if .caConfigMap }}{{ if contains "?" .url }}&{{ else }}?{{ end }}sslrootcert=/etc/scopeward/audit-forward-ca/{{ .caFile }}{{ end }}
{{- end }}

{{- /* Settings by their keys as arguments: a switch that is on is the flag alone, numbers are whole numbers. */}}
{{- define "scopeward.settings" -}}
{{- $args := list }}
{{- range $key, $value := .Values.settings }}
{{- if kindIs "bool" $value }}
{{- if $value }}{{ $args = append $args (printf "--%s" (kebabcase $key)) }}{{ end }}
{{- else if kindIs "float64" $value }}
{{- $args = append $args (printf "--%s=%d" (kebabcase $key) (int64 $value)) }}
{{- else }}
{{- $args = append $args (printf "--%s=%v" (kebabcase $key) $value) }}
{{- end }}
{{- end }}
{{- with concat $args .Values.extraArgs }}{{ toYaml . }}{{ end }}
{{- end }}

{{- /* Fails unless the choices that have no default are made, once each. */}}
{{- define "scopeward.validate" -}}
{{- $values := .Values }}
{{- if not $values.image.repository }}
{{- fail "image.repository: name the registry and the repository that has the image" }}
{{- end }}
{{- $policies := list }}
{{- if $values.policies.files }}{{ $policies = append $policies "policies.files" }}{{ end }}
{{- if $values.policies.existingConfigMap }}{{ $policies = append $policies "policies.existingConfigMap" }}{{ end }}
{{- if $values.policies.volume }}{{ $policies = append $policies "policies.volume" }}{{ end }}
{{- if ne (len $policies) 1 }}
{{- fail (printf "policies: set exactly one of policies.files, policies.existingConfigMap and policies.volume, not %s" (default "none" (join " and " $policies))) }}
{{- end }}
{{- $tls := list }}
{{- if $values.tls.existingSecret }}{{ $tls = append $tls "tls.existingSecret" }}{{ end }}
{{- if $values.tls.certManager.enabled }}{{ $tls = append $tls "tls.certManager.enabled" }}{{ end }}
{{- if $values.tls.volume }}{{ $tls = append $tls "tls.volume" }}{{ end }}
{{- if $values.tls.insecurePlaintext }}{{ $tls = append $tls "tls.insecurePlaintext" }}{{ end }}
{{- if ne (len $tls) 1 }}
{{- fail (printf "tls: set exactly one of tls.existingSecret, tls.certManager.enabled, tls.volume and, only where a mesh encrypts, tls.insecurePlaintext, not %s" (default "none" (join " and " $tls))) }}
{{- end }}
{{- if and $values.tls.certManager.enabled (not $values.tls.certManager.issuerRef.name) }}
{{- fail "tls.certManager.issuerRef.name: name the Issuer or ClusterIssuer" }}
{{- end }}
{{- $clientCa := list }}
{{- if $values.tls.clientCa.existingSecret }}{{ $clientCa = append $clientCa "existingSecret" }}{{ end }}
{{- if $values.tls.clientCa.existingConfigMap }}{{ $clientCa = append $clientCa "existingConfigMap" }}{{ end }}
{{- if $values.tls.clientCa.inServerVolume }}{{ $clientCa = append $clientCa "inServerVolume" }}{{ end }}
{{- if gt (len $clientCa) 1 }}
{{- fail (printf "tls.clientCa: set only one of %s" (join " and " $clientCa)) }}
{{- end }}
{{- if and $clientCa $values.tls.insecurePlaintext }}
{{- fail "tls.clientCa: client certificates need TLS, and tls.insecurePlaintext is set" }}
{{- end }}
{{- $access := list }}
{{- if $values.access.existingSecret }}{{ $access = append $access "access.existingSecret" }}{{ end }}
{{- if $values.access.text }}{{ $access = append $access "access.text" }}{{ end }}
{{- if $values.access.unrestricted }}{{ $access = append $access "access.unrestricted" }}{{ end }}
{{- if ne (len $access) 1 }}
{{- fail (printf "access: set exactly one of access.existingSecret, access.text and, where everybody who reaches the port may do everything, access.unrestricted, not %s" (default "none" (join " and " $access))) }}
{{- end }}
{{- if regexMatch "^[a-z]+://[^/@]*:[^/@]*@" $values.auditForward.url }}
{{- fail "auditForward.url: it has a password, which everybody who may see pods can read there; put it into the Secret auditForward.passwordSecret" }}
{{- end }}
{{- if and $values.auditForward.url $values.networkPolicy.enabled (not $values.networkPolicy.egress) }}
{{- fail "auditForward.url: the pods may connect to nothing; name the store, and DNS, in networkPolicy.egress" }}
{{- end }}
{{- if and $values.persistence.existingClaim (gt (int $values.replicas) 1) }}
{{- fail "persistence.existingClaim: one claim is for one replica, since a state directory has one server" }}
{{- end }}
{{- if and $values.serviceMonitor.enabled $values.networkPolicy.enabled (not $values.networkPolicy.adminFrom) }}
{{- fail "serviceMonitor.enabled: nobody may reach the admin port; name Prometheus in networkPolicy.adminFrom" }}
{{- end }}
{{- end }}
