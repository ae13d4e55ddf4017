//! A caller that knows certain audiences learns nothing of the others: not by the text of an answer, and not by the work that it
//! takes, which is what a clock would measure.

use std::process::Command;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use scopeward::access::AuthenticatedBy;
use scopeward::policy::check::check;
use scopeward::policy::document::Document;
use scopeward::rpc::caller::{CallOrigin, Caller, CallerIdentity};
use scopeward::rpc::scope_policy::ScopePolicy;
use scopeward::rpc::v1;
use scopeward::rpc::v1::scope_policy_service_server::ScopePolicyService;
use scopeward::store::{Active, Current};
use tonic::{Request, Response, Status};

use crate::harness::reason;
use crate::tools;

/// What is asked about.
#[derive(Clone, Copy, Debug)]
enum Asked {
    /// Audiences of the policy that the caller does not know.
    There,
    /// Audiences that no policy has, with names as long.
    Nowhere,
}

impl Asked {
    fn names(self) -> Vec<String> {
        let host = match self {
            Self::There => "there",
            Self::Nowhere => "never",
        };
        (0..20).map(|number| format!("https://{host}-{:03}.example.com", number * 7)).collect()
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
enum Asks {
    /// Somebody who knows one other audience.
    Restricted,
    /// Somebody who knows all.
    Open,
}

struct Asking {
    service: ScopePolicy,
    identity: CallerIdentity,
}

impl Asking {
    fn new(asks: Asks) -> Self {
        let mut policy = "audiences:\n  own: {scopesSupported: [openid]}\n".to_owned();
        for number in 0..1000 {
            policy.push_str(&format!(
                "  https://there-{number:03}.example.com: {{scopesSupported: [openid, a, b], baselineClientScopes: [a]}}\n"
            ));
        }
        let file: Arc<str> = "policy.yaml".into();
        let set = check(&file, &[Document::read(&file, &policy)]).expect("it is valid").set;
        let current = Current::default();
        current.store(Some(Arc::new(Active { set, generation: 1, load_time: SystemTime::UNIX_EPOCH })));
        let audiences: Option<Arc<[Box<str>]>> = match asks {
            Asks::Restricted => Some(Arc::new(["own".into()])),
            Asks::Open => None,
        };
        let caller = Arc::new(Caller::new("caller".into(), audiences));
        Self {
            service: ScopePolicy::new(current),
            identity: CallerIdentity { caller, authenticated_by: AuthenticatedBy::Token },
        }
    }

    fn request<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        let identity = Some(self.identity.clone());
        request.extensions_mut().insert(CallOrigin { identity, ..CallOrigin::default() });
        request
    }

    /// Asks everything that names an audience.
    async fn ask(&self, name: &str) -> Answers {
        let names = || vec![name.to_owned()];
        let (scope, registered_scope) = (Some("openid".to_owned()), Some("openid".to_owned()));
        let check = v1::CheckAuthorizeScopesRequest {
            audiences: names(),
            scope: scope.clone(),
            registered_scope,
            ..Default::default()
        };
        let expand = v1::ExpandRegistrationScopesRequest { audiences: names(), scope, ..Default::default() };
        let describe = v1::DescribeAudienceRequest { audience: name.to_owned(), ..Default::default() };
        let batch = v1::BatchCheckAuthorizeScopesRequest { checks: vec![check.clone()] };
        Answers {
            check: self.service.check_authorize_scopes(self.request(check)).await.unwrap().into_inner(),
            expand: self.service.expand_registration_scopes(self.request(expand)).await.unwrap().into_inner(),
            batch: self.service.batch_check_authorize_scopes(self.request(batch)).await.unwrap().into_inner(),
            describe: self.service.describe_audience(self.request(describe)).await.map(Response::into_inner),
        }
    }
}

struct Answers {
    check: v1::CheckAuthorizeScopesResponse,
    expand: v1::ExpandRegistrationScopesResponse,
    batch: v1::BatchCheckAuthorizeScopesResponse,
    describe: Result<v1::DescribeAudienceResponse, Status>,
}

impl Answers {
    /// All of it as text, with stand-ins for the name that was asked about and for what differs each time.
    fn text(mut self, name: &str) -> String {
        self.check.decision_id.clear();
        self.expand.decision_id.clear();
        for result in &mut self.batch.results {
            if let Some(v1::batch_check_result::Result::Response(response)) = &mut result.result {
                response.decision_id.clear();
            }
        }
        let Self { check, expand, batch, describe } = self;
        let describe =
            describe.map_err(|status| (status.code(), status.message().to_owned(), reason(&status)));
        format!("{check:?} {expand:?} {batch:?} {describe:?}").replace(name, "NAME")
    }
}

/// Its instructions are counted. The pattern of the counter matches this name, so nothing that it calls may have it in its own.
#[inline(never)]
fn work_of_questions(runtime: &tokio::runtime::Runtime, asking: &Asking, names: &[String]) {
    for name in names {
        std::hint::black_box(runtime.block_on(asking.ask(name)));
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

#[test]
fn answers_are_the_same_whether_an_audience_exists() {
    let runtime = runtime();
    // Started by the test below, for one kind of question.
    if let Ok(named) = std::env::var("TEST_ASKED") {
        let (asks, asked) = named.split_once('-').unwrap();
        let asks = if asks == "restricted" { Asks::Restricted } else { Asks::Open };
        let asked = if asked == "there" { Asked::There } else { Asked::Nowhere };
        let (asking, names) = (Asking::new(asks), asked.names());
        runtime.block_on(asking.ask("own"));
        for _ in 0..5 {
            work_of_questions(&runtime, &asking, &names);
        }
        return;
    }
    let answers = |asks, asked: Asked| {
        let asking = Asking::new(asks);
        asked.names().iter().map(|name| runtime.block_on(asking.ask(name)).text(name)).collect::<Vec<_>>()
    };
    let restricted = answers(Asks::Restricted, Asked::There);
    assert!(
        restricted[0].contains("AudienceUnknown") && restricted[0].contains("NotFound"),
        "{}",
        restricted[0]
    );
    assert_eq!(restricted, answers(Asks::Restricted, Asked::Nowhere));
    // Whoever may know sees the difference.
    assert_ne!(answers(Asks::Open, Asked::There), answers(Asks::Open, Asked::Nowhere));
    // And the time, for people: no test can hold a busy machine to it.
    let asking = Asking::new(Asks::Restricted);
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..20 {
        for (asked, times) in [Asked::There, Asked::Nowhere].into_iter().zip(&mut times) {
            let names = asked.names();
            let began = Instant::now();
            work_of_questions(&runtime, &asking, &names);
            times.push(began.elapsed());
        }
    }
    let medians = times.map(|mut times| {
        times.sort();
        times[times.len() / 2] / 80
    });
    println!("median of a question: there {:?}, nowhere {:?}", medians[0], medians[1]);
}

#[test]
fn the_work_is_the_same_whether_an_audience_exists() {
    if !tools::wanted("valgrind") {
        return;
    }
    let instructions = |asks: &str, asked: &str| -> f64 {
        let folder = tempfile::tempdir().unwrap();
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=*work_of_questions*"])
            .arg(format!("--callgrind-out-file={}", folder.path().join("out").display()))
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "unknown_audiences::answers_are_the_same_whether_an_audience_exists"])
            .env("TEST_ASKED", format!("{asks}-{asked}"))
            .output()
            .expect("valgrind runs");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{text}");
        let collected = text.lines().find_map(|line| line.split_once("Collected : "));
        let count = collected.and_then(|(_, count)| count.trim().parse().ok());
        count.filter(|count| *count > 0.0).unwrap_or_else(|| panic!("{text}"))
    };
    let differs = |asks| {
        let (there, nowhere) = (instructions(asks, "there"), instructions(asks, "nowhere"));
        println!(
            "{asks}: there {:.0}, nowhere {:.0} instructions a question",
            there / 400.0,
            nowhere / 400.0
        );
        (there - nowhere).abs() / nowhere
    };
    let (restricted, open) = (differs("restricted"), differs("open"));
    assert!(restricted < 0.01, "{restricted}");
    assert!(open > 0.05, "the count sees what a look-up that succeeds costs: {open}");
}
