//! The limits that no setting moves, from the constants that hold them.

use std::time::Duration;

use super::{line, row, start};
use crate::cli::value::{size_text, time_text};
use crate::server::config::PeerLimits;
use crate::{audience, audit, decision, policy, rpc, scope, status, store};

pub(super) fn page() -> String {
    let mut page = start("Limits", "the constants of the program");
    line(
        &mut page,
        "Those that a setting moves are among the [settings](settings.md). INVALID_ARGUMENT, UNAVAILABLE and the like are gRPC \
         codes, each with a reason in its `ErrorInfo`.",
    );
    for (title, rows) in [
        ("Questions", questions()),
        ("Callers", callers()),
        ("Policy files", files()),
        ("Status and audit", shown()),
    ] {
        line(&mut page, &format!("\n## {title}\n"));
        line(&mut page, "| what | limit | beyond it |");
        line(&mut page, "| --- | --- | --- |");
        for (what, limit, beyond) in rows {
            row(&mut page, &[what.to_owned(), limit, beyond.to_owned()]);
        }
    }
    page
}

/// What is limited, how much of it there may be, and what becomes of more.
type Row = (&'static str, String, &'static str);

fn questions() -> Vec<Row> {
    use rpc::limits;
    vec![
        ("a message", bytes(limits::MAX_MESSAGE_BYTES), "INVALID_ARGUMENT, `MESSAGE_TOO_LARGE`"),
        ("the message of a batch", bytes(limits::MAX_BATCH_BYTES), "INVALID_ARGUMENT, `MESSAGE_TOO_LARGE`"),
        (
            "the JSON of a message, over HTTP",
            format!("{} times as much", limits::JSON_FACTOR),
            "INVALID_ARGUMENT, `MESSAGE_TOO_LARGE`",
        ),
        ("checks of a batch", number(limits::MAX_BATCH_ITEMS), "INVALID_ARGUMENT, `LIMIT_EXCEEDED`"),
        (
            "an answer",
            bytes(limits::MAX_ANSWER_BYTES),
            "RESOURCE_EXHAUSTED, `ANSWER_TOO_LARGE`, for the item of a batch; its texts for people go first",
        ),
        (
            "tokens in `scope`",
            number(decision::MAX_SCOPES),
            "a denial, TOO_MANY_SCOPES; tokens that the client holds do not count",
        ),
        (
            "the scope of an answer",
            bytes(decision::limit::MAX_ANSWER_SCOPE_BYTES),
            "a denial, TOO_MANY_SCOPES",
        ),
        ("a scope token", bytes(scope::MAX_TOKEN_BYTES), "MALFORMED, an answer"),
        ("the client's metadata", bytes(decision::limit::MAX_CLIENT_BYTES), "a denial, CLIENT_TOO_LARGE"),
        (
            "a client name that a rule compares",
            bytes(decision::client::MAX_CLIENT_NAME_BYTES),
            "no rule holds for it",
        ),
        ("audiences named", number(decision::MAX_AUDIENCES), "INVALID_ARGUMENT, `LIMIT_EXCEEDED`"),
        ("an audience", bytes(audience::MAX_AUDIENCE_BYTES), "INVALID_ARGUMENT, `LIMIT_EXCEEDED`"),
        (
            "`correlation_id`",
            bytes(decision::limit::MAX_CORRELATION_ID_BYTES),
            "INVALID_ARGUMENT, `LIMIT_EXCEEDED`",
        ),
        (
            "audiences of a page of `DescribeAudience`",
            number(limits::MAX_PAGE_SIZE),
            "the rest is on the next page",
        ),
    ]
}

fn callers() -> Vec<Row> {
    let PeerLimits {
        max_calls_per_connection,
        max_streams_per_connection,
        max_large_questions,
        message_timeout,
        response_progress_timeout,
        max_connection_age_grace,
        first_frame_timeout,
        handshake_timeout,
        keepalive_interval,
        keepalive_timeout,
        max_concurrent_streams,
        max_header_list_bytes,
        ..
    } = PeerLimits::default();
    vec![
        (
            "calls in flight on one connection",
            number(max_calls_per_connection),
            "UNAVAILABLE, `CONNECTION_OVERLOADED`",
        ),
        (
            "streams of one connection",
            number(max_streams_per_connection),
            "UNAVAILABLE, `TOO_MANY_STREAMS_ON_CONNECTION`",
        ),
        (
            "questions that take long, at the same time",
            number(max_large_questions),
            "UNAVAILABLE, `TOO_MANY_LARGE_QUESTIONS`",
        ),
        ("from the headers of a call to the end of its message", time(message_timeout), "DEADLINE_EXCEEDED"),
        ("a response that makes no progress", time(response_progress_timeout), "reset"),
        (
            "streams on a connection beyond `--max-connection-age`",
            time(max_connection_age_grace),
            "UNAVAILABLE, `CONNECTION_EXPIRED`",
        ),
        ("a TLS handshake", time(handshake_timeout), "closed"),
        (
            "from the connection to its first frame, the handshake included",
            time(first_frame_timeout),
            "closed",
        ),
        ("silence before a ping", time(keepalive_interval), "a ping"),
        ("the answer to a ping", time(keepalive_timeout), "closed"),
        ("HTTP/2 streams of one connection", max_concurrent_streams.to_string(), "refused by HTTP/2"),
        ("headers of a call", size_text(u64::from(max_header_list_bytes)), "refused by HTTP/2"),
    ]
}

fn files() -> Vec<Row> {
    vec![
        ("a policy file", size_text(store::read::MAX_FILE_BYTES), "finding `FileTooLarge`"),
        (
            "all policy files",
            size_text(store::read::MAX_TOTAL_BYTES),
            "finding `FileTooLarge`; a million audiences with three scopes each are about three quarters of it",
        ),
        ("policy files", number(store::read::MAX_FILES), "finding"),
        ("folders in folders", number(store::read::MAX_DEPTH), "finding"),
        ("YAML in YAML", number(policy::yaml::MAX_DEPTH), "finding `YamlTooDeep`"),
        ("nodes of a file", number(policy::yaml::MAX_NODES), "finding `YamlTooLarge`"),
        (
            "entries of a list or mapping in a file",
            number(policy::yaml::MAX_ENTRIES),
            "finding `YamlTooLarge`",
        ),
        ("nodes that aliases repeat", number(policy::yaml::MAX_ALIAS_NODES), "finding `YamlTooLarge`"),
        (
            "`baselineClientScopes`",
            number(policy::MAX_BASELINE_CLIENT_SCOPES),
            "finding `TooManyBaselineScopes`; `guardrails` may lower it",
        ),
        ("`registrationAudiences`", number(policy::MAX_REGISTRATION_AUDIENCES), "finding"),
        ("`aliases` of an audience", number(policy::MAX_ALIASES), "finding"),
        ("characters of a description", number(policy::MAX_DESCRIPTION_CHARS), "finding"),
        ("characters of a scope description", number(policy::MAX_SCOPE_DESCRIPTION_CHARS), "finding"),
        (
            "findings of an attempt",
            number(policy::finding::MAX_FINDINGS),
            "counted, not kept; errors are kept first",
        ),
    ]
}

fn shown() -> Vec<Row> {
    vec![
        (
            "audience statuses",
            number(status::MAX_LISTED),
            "left out, those in trouble last; the count says how many there are",
        ),
        ("changes that a policy change names", number(store::state::MAX_NAMED_CHANGES), "counted"),
        (
            "questions that wait for the shadow policy",
            number(rpc::shadow::MAX_WAITING),
            "not compared, counted",
        ),
        ("their bytes", bytes(rpc::shadow::MAX_WAITING_BYTES), "not compared, counted"),
        ("differences that are kept", number(rpc::shadow::MAX_KEPT), "the oldest are forgotten"),
        ("client metadata in an audit event", bytes(audit::MAX_CLIENT_BYTES), "cut, `client_truncated`"),
        ("an audit record", bytes(audit::MAX_RECORD_BYTES), "RESOURCE_EXHAUSTED"),
        ("trailers of an error", bytes(rpc::error::MAX_TRAILER_BYTES), "details are cut"),
    ]
}

fn bytes(bytes: usize) -> String {
    size_text(bytes as u64)
}

fn number(number: usize) -> String {
    number.to_string()
}

fn time(time: Duration) -> String {
    time_text(time)
}
