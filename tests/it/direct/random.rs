//! Drawn calls, some of them damaged.

use super::*;

/// A small generator of numbers (xorshift), so that a failure can be repeated.
pub(super) struct Random(pub(super) u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).expect("a small number")
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    /// Now and then nothing, else up to `most` of them.
    fn some(&mut self, most: usize, from: &[&str]) -> Vec<String> {
        (0..self.below(most + 1)).map(|_| self.pick(from).to_owned()).collect()
    }

    fn scope(&mut self) -> Option<String> {
        let separator = if self.below(10) == 0 { "  " } else { " " };
        (self.below(6) > 0).then(|| self.some(6, &SCOPES).join(separator))
    }

    fn client(&mut self) -> Option<v1::Client> {
        (self.below(3) > 0).then(|| v1::Client {
            client_id: self.pick(&["", "c1", "https://app.example.com/client.json", "ünïcode"]).to_owned(),
            source: i32::try_from(self.below(5)).expect("a small number"),
            client_name: self.pick(&["", "A client", "\u{1F980}"]).to_owned(),
            software_id: self.pick(&["", "s"]).to_owned(),
            software_version: self.pick(&["", "1.0"]).to_owned(),
            redirect_uris: self
                .some(3, &["http://127.0.0.1:7/cb", "http://[::1]/cb", "https://app.example.com/cb"]),
            grant_types: self.some(2, &["authorization_code", "refresh_token"]),
            application_type: self.pick(&["", "native", "web"]).to_owned(),
        })
    }

    fn check(&mut self) -> v1::CheckAuthorizeScopesRequest {
        v1::CheckAuthorizeScopesRequest {
            audiences: self.some(3, &AUDIENCES),
            scope: self.scope(),
            registered_scope: self.scope(),
            client: self.client(),
            correlation_id: self.pick(&["", "", "login-1", "not\nprintable"]).to_owned(),
        }
    }

    fn expand(&mut self) -> v1::ExpandRegistrationScopesRequest {
        v1::ExpandRegistrationScopesRequest {
            audiences: self.some(3, &AUDIENCES),
            scope: self.scope(),
            client: self.client(),
            previous_scope: self.scope(),
            correlation_id: self.pick(&["", "", "login-1"]).to_owned(),
        }
    }

    fn token(&mut self) -> v1::CheckTokenScopesRequest {
        v1::CheckTokenScopesRequest {
            audiences: self.some(3, &AUDIENCES),
            scope: self.scope(),
            granted_scope: self.scope(),
            registered_scope: self.scope(),
            client: self.client(),
            grant: i32::try_from(self.below(6)).expect("a small number"),
            correlation_id: self.pick(&["", "", "login-1"]).to_owned(),
        }
    }

    pub(super) fn call(&mut self) -> Raw {
        match self.below(7) {
            0 | 1 => call(EXPAND, framed(&self.expand())),
            5 => call(TOKEN, framed(&self.token())),
            6 => {
                let checks = (0..self.below(5)).map(|_| self.token()).collect();
                call(TOKEN_BATCH, framed(&v1::BatchCheckTokenScopesRequest { checks }))
            }
            2 => {
                let checks = (0..self.below(5)).map(|_| self.check()).collect();
                call(BATCH, framed(&v1::BatchCheckAuthorizeScopesRequest { checks }))
            }
            _ => call(CHECK, framed(&self.check())),
        }
    }

    /// With some of its bytes changed.
    pub(super) fn damaged(&mut self) -> Raw {
        let mut raw = self.call();
        let body = &mut raw.pieces[0];
        for _ in 0..=self.below(3) {
            if let Some(most) = body.len().checked_sub(5).filter(|most| *most > 0) {
                let at = 5 + self.below(most);
                body[at] = u8::try_from(self.below(256)).expect("a byte");
            }
        }
        raw
    }
}

const AUDIENCES: [&str; 8] = [
    AUDIENCE,
    AUDIENCE,
    "HTTPS://MCP.example.com:443/",
    "https://mcp.example.com/v2",
    "https://files.example.com/api",
    "wild",
    "https://nowhere.example.com",
    "",
];

const SCOPES: [&str; 18] = [
    "openid",
    "offline_access",
    "mcp:read",
    "mcp:write",
    "mcp:admin",
    "files",
    "files.read",
    "files.read.all",
    "files.admin",
    "a:*",
    "a:1",
    "b:x:y:z",
    "c",
    "nowhere",
    "",
    "bad\"scope",
    "ünïcode",
    "a:",
];
