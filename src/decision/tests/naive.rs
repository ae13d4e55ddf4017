//! The rules of the design once more, as plainly as they can be said: sets and loops over a policy and a question as they
//! were [drawn](draw), no code of the real evaluator, of the reader or of the check. Slow on purpose.

use draw::{Audience, Person, Question, Rule};

mod compare;
mod draw;
mod laws;
mod questions;

// --- Words (sections 2 and 3, "Matching", "Tokens", "Audiences") ---

/// Split on spaces only; duplicates collapse to the first.
fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for word in text.split(' ') {
        if !word.is_empty() && !words.contains(&word) {
            words.push(word);
        }
    }
    words
}

/// RFC 6749 section 3.3, and at most 512 bytes.
fn is_token(word: &str) -> bool {
    word.len() <= 512 && word.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5B | 0x5D..=0x7E))
}

/// Those of a list that counts only as far as it is well formed.
fn tokens(text: &str) -> Vec<&str> {
    words(text).into_iter().filter(|word| is_token(word)).collect()
}

fn segments(scope: &str) -> Vec<&str> {
    scope.split('.').collect()
}

fn has_star(scope: &str) -> bool {
    segments(scope).contains(&"*")
}

fn has_empty_segment(scope: &str) -> bool {
    segments(scope).contains(&"")
}

/// An entry against a scope.
fn matches(matching: &str, entry: &str, scope: &str) -> bool {
    fn wild(entry: &[&str], scope: &[&str]) -> bool {
        match (entry, scope) {
            (["*"], [_, ..]) | ([], []) => true,
            ([one, entry @ ..], [other, scope @ ..]) => (*one == "*" || one == other) && wild(entry, scope),
            _ => false,
        }
    }
    entry == scope
        || !has_empty_segment(scope)
            && match matching {
                "hierarchic" => segments(scope).starts_with(&segments(entry)),
                "wildcard" => wild(&segments(entry), &segments(scope)),
                _ => false,
            }
}

/// A forbidden or privileged entry against a scope: both ways, and by overlap of two patterns.
fn stops(matching: &str, entry: &str, scope: &str) -> bool {
    fn overlap(one: &[&str], other: &[&str]) -> bool {
        match (one, other) {
            ([], []) | (["*"], [_, ..]) | ([_, ..], ["*"]) => true,
            ([a, one @ ..], [b, other @ ..]) => (a == b || *a == "*" || *b == "*") && overlap(one, other),
            _ => false,
        }
    }
    matches(matching, entry, scope)
        || matches(matching, scope, entry)
        || matching == "wildcard"
            && !has_empty_segment(entry)
            && !has_empty_segment(scope)
            && overlap(&segments(entry), &segments(scope))
}

/// The form in which audiences compare; `None` if malformed.
fn normal(audience: &str) -> Option<String> {
    let Some((scheme, rest)) = audience.split_once("://") else { return Some(audience.to_owned()) };
    if rest.contains('#') {
        return None;
    }
    let (host, tail) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (scheme, mut host) = (scheme.to_lowercase(), host.to_lowercase());
    let default = if scheme == "https" { ":443" } else { ":80" };
    if ["http", "https"].contains(&&*scheme) && host.ends_with(default) {
        host.truncate(host.len() - default.len());
    }
    let tail = if tail == "/" || tail.starts_with("/?") { &tail[1..] } else { tail };
    Some(format!("{scheme}://{host}{tail}"))
}

fn without_query(audience: &str) -> &str {
    audience.split('?').next().unwrap()
}

// --- The policy of an audience (section 2) ---

impl Audience {
    fn matching(&self) -> &str {
        self.word("scopeMatching")
    }

    fn has(&self, list: &str, scope: &str) -> bool {
        self.list(list).iter().any(|entry| matches(self.matching(), entry, scope))
    }

    pub(super) fn supports(&self, scope: &str) -> bool {
        self.has("scopesSupported", scope)
    }

    pub(super) fn forbids(&self, scope: &str) -> bool {
        let lists = self.list("forbiddenScopes").iter().chain(self.list("guardrails.forbiddenScopes"));
        lists.into_iter().any(|entry| stops(self.matching(), entry, scope))
    }

    pub(super) fn is_privileged(&self, scope: &str) -> bool {
        let lists = self.list("privilegedScopes").iter().chain(self.list("guardrails.privilegedScopes"));
        lists.into_iter().any(|entry| stops(self.matching(), entry, scope))
    }

    fn defaults(&self) -> Vec<&'static str> {
        if self.lists.contains_key("defaultClientScopes") {
            return self.list("defaultClientScopes").to_vec();
        }
        let may = |scope: &&str| self.supports(scope) && !self.is_privileged(scope) && !self.forbids(scope);
        ["openid", "profile", "email", "offline_access"].into_iter().filter(may).collect()
    }

    /// The baseline, and then that of each rule that holds: scope and name of the rule.
    fn baseline(&self, person: &Person) -> Vec<(&'static str, &'static str)> {
        let mut baseline: Vec<_> =
            self.list("baselineClientScopes").iter().map(|scope| (*scope, "")).collect();
        for rule in self.rules.iter().filter(|rule| rule.holds(person)) {
            baseline.extend(rule.scopes.iter().map(|scope| (*scope, rule.name)));
        }
        baseline
    }

    fn unknown(&self, person: &Person) -> &'static str {
        match (self.words.get("authorization.unknownRegistration"), person.source) {
            (Some(one_word), _) => one_word,
            (None, "") => "omitted",
            (None, source) => self.word(&format!("authorization.unknownRegistration.{source}")),
        }
    }

    /// Whether one of these tokens of a client covers a scope.
    fn covers(&self, text: &str, scope: &str) -> bool {
        tokens(text).into_iter().any(|token| {
            let stands_for_more = self.supports(token) && !self.forbids(token) && !self.is_privileged(scope);
            token == scope || stands_for_more && matches(self.matching(), token, scope)
        })
    }

    /// Whether what is given unasked must leave this out.
    fn must_be_asked(&self, scope: &str) -> bool {
        self.is_privileged(scope)
            || self.has("authorization.stepUpScopes", scope)
            || self.matching() == "wildcard" && has_star(scope)
    }

    /// Whether the baseline covers this client.
    fn has_baseline(&self, asked: &Question) -> bool {
        match asked.registered {
            Some(_) => self.word("authorization.baselineForExistingClients") == "true",
            None => self.unknown(&asked.person) != "none",
        }
    }

    /// By what a client holds a scope, the first that fits, with the name of the rule: `None` if it does not hold it.
    fn held(&self, asked: &Question, scope: &str) -> Option<(&'static str, &'static str)> {
        let is_default = || self.defaults().iter().any(|entry| matches(self.matching(), entry, scope));
        match &asked.registered {
            Some(registered) if self.covers(registered, scope) => return Some(("REGISTERED", "")),
            None if self.unknown(&asked.person) != "none" && is_default() => return Some(("DEFAULT", "")),
            _ => {}
        }
        self.given(asked, scope)
    }

    /// By what of the baseline and the rules a client holds a scope.
    fn given(&self, asked: &Question, scope: &str) -> Option<(&'static str, &'static str)> {
        let baseline = if self.has_baseline(asked) { self.baseline(&asked.person) } else { Vec::new() };
        let by = baseline.into_iter().find(|(entry, _)| matches(self.matching(), entry, scope));
        by.map(|(_, rule)| ("BASELINE", rule))
    }

    /// Whether nothing is known of the client and every supported scope counts as held.
    fn holds_anything(&self, asked: &Question) -> bool {
        asked.registered.is_none() && self.unknown(&asked.person) == "supported"
    }
}

impl Rule {
    fn holds(&self, person: &Person) -> bool {
        fn glob(pattern: &[u8], name: &[u8]) -> bool {
            match pattern {
                [] => name.is_empty(),
                [b'*', rest @ ..] => (0..=name.len()).any(|at| glob(rest, &name[at..])),
                [one, rest @ ..] => name.first() == Some(one) && glob(rest, &name[1..]),
            }
        }
        let equal = |said: &str, wanted: &str| !said.is_empty() && said == wanted;
        self.when.iter().all(|(member, wanted)| match *member {
            "source" => equal(person.source, wanted),
            "softwareId" => equal(&person.software_id, wanted),
            "applicationType" => equal(&person.application_type, wanted),
            "clientIdHost" => {
                person.source == "cimd"
                    && split(&person.client_id).is_some_and(|(scheme, host, port, rest)| {
                        scheme == "https" && port.is_empty() && host == *wanted && rest.starts_with('/')
                    })
            }
            "clientName" => {
                !person.client_name.is_empty()
                    && person.client_name.len() <= 256
                    && glob(wanted.as_bytes(), person.client_name.as_bytes())
            }
            "grantTypes" => wanted.split(' ').all(|wanted| match &person.grant_types[..] {
                [] => wanted == "authorization_code",
                types => types.iter().any(|one| one == wanted),
            }),
            "redirectUri" if *wanted == "loopback" => {
                !person.redirect_uris.is_empty() && person.redirect_uris.iter().all(|uri| is_loopback(uri))
            }
            "redirectUri" => {
                person.redirect_uris.iter().any(|uri| split(uri).is_some() && split(uri) == split(wanted))
            }
            member => panic!("{member}"),
        })
    }
}

/// Scheme and host in lower case, port (empty for the default one), the rest; `None` for what parsers read differently.
fn split(uri: &str) -> Option<(String, String, String, String)> {
    let (scheme, rest) = uri.split_once("://")?;
    let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let is_odd = !uri.bytes().all(|byte| byte.is_ascii_graphic())
        || uri.contains(['\\', '#'])
        || authority.contains('@');
    let end_of_host = authority.find(']').map_or(0, |at| at + 1);
    let colon = authority[end_of_host..].find(':').map_or(authority.len(), |at| end_of_host + at);
    let scheme = scheme.to_lowercase();
    let port = match (&*scheme, authority[colon..].trim_start_matches(':')) {
        ("https", "443") | ("http", "80") => "",
        (_, port) => port,
    };
    (!is_odd).then(|| (scheme, authority[..colon].to_lowercase(), port.to_owned(), rest.to_owned()))
}

fn is_loopback(uri: &str) -> bool {
    let is_part = |part: &str| part.parse::<u8>().is_ok_and(|number| number.to_string() == part);
    split(uri).is_some_and(|(scheme, host, ..)| {
        let parts: Vec<&str> = host.split('.').collect();
        let is_v4 = parts.len() == 4 && parts[0] == "127" && parts.iter().all(|part| is_part(part));
        scheme == "http" && (host == "localhost" || host == "[::1]" || is_v4)
    })
}

fn distinct(list: Vec<&str>) -> Vec<&str> {
    let mut distinct: Vec<&str> = Vec::new();
    for one in list {
        if !distinct.contains(&one) {
            distinct.push(one);
        }
    }
    distinct
}
