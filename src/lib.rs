//! Scopeward: a policy decision service for OAuth scopes.
