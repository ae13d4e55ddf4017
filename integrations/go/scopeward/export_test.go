package scopeward

import "time"

// SetAuditSilence makes streams that are silent end sooner; it returns what sets it back.
func SetAuditSilence(silence time.Duration) func() {
	before := auditSilence
	auditSilence = silence
	return func() { auditSilence = before }
}

// ParseTargets returns what gRPC gets, the addresses, and whether TLS is used.
func ParseTargets(texts ...string) (string, []string, bool, error) {
	found, err := parseTargets(texts)
	return found.target, found.addresses, found.isTLS, err
}
