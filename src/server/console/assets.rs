//! The files of the page, as they are in `page/`.

use bytes::Bytes;
use http::header::LOCATION;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;

use crate::server::admin::{answer, text};

/// The file of a path below `/console`; `None` if there is none.
pub(super) fn find(path: &str) -> Option<Response<Full<Bytes>>> {
    if path == "/" {
        // The page names its files relative to `/console`, so that it may be served below another path by a proxy.
        let mut response = text(StatusCode::PERMANENT_REDIRECT, "/console\n".to_owned());
        response.headers_mut().insert(LOCATION, HeaderValue::from_static("../console"));
        return Some(response);
    }
    let (_, content_type, file) = FILES.iter().find(|(name, ..)| *name == path)?;
    Some(answer(StatusCode::OK, content_type, Bytes::from_static(file.as_bytes())))
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

const FILES: &[(&str, &str, &str)] = &[
    ("", HTML, include_str!("page/index.html")),
    ("/style.css", CSS, include_str!("page/style.css")),
    ("/icon.svg", SVG, include_str!("page/icon.svg")),
    ("/main.js", SCRIPT, include_str!("page/main.js")),
    ("/dom.js", SCRIPT, include_str!("page/dom.js")),
    ("/server.js", SCRIPT, include_str!("page/server.js")),
    ("/overview.js", SCRIPT, include_str!("page/overview.js")),
    ("/audiences.js", SCRIPT, include_str!("page/audiences.js")),
    ("/ask.js", SCRIPT, include_str!("page/ask.js")),
    ("/decisions.js", SCRIPT, include_str!("page/decisions.js")),
];
