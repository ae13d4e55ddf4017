use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use http::Method;
use http_body::{Body as _, Frame};
use http_body_util::StreamBody;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::pool::{KEPT_IDLE, MAX_IDLE};
use super::*;
use crate::server::gateway::body::full;

/// An upstream whose connections are each served by a function, which knows their 0-based number.
struct ScriptedUpstream {
    addr: SocketAddr,
    accepted: Arc<AtomicUsize>,
    running: JoinHandle<()>,
}

impl ScriptedUpstream {
    async fn start<F: Future<Output = ()> + Send + 'static>(
        serve: impl Fn(usize, TcpStream) -> F + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, accepted) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
        let count = Arc::clone(&accepted);
        let running = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                tokio::spawn(serve(count.fetch_add(1, Ordering::SeqCst), stream));
            }
        });
        Self { addr, accepted, running }
    }

    /// One that sends these bytes for each head, and tells of each connection that its client closed.
    async fn answering(answer: &'static [u8]) -> (Self, mpsc::UnboundedReceiver<usize>) {
        let (closed, is_closed) = mpsc::unbounded_channel();
        let upstream = Self::start(move |number, mut stream| {
            let closed = closed.clone();
            async move {
                while head(&mut stream).await.is_some() {
                    _ = stream.write_all(answer).await;
                }
                _ = closed.send(number);
            }
        });
        (upstream.await, is_closed)
    }

    fn client(&self) -> Upstream {
        let authority = Authority::try_from(self.addr.to_string()).unwrap();
        Upstream::new(Scheme::HTTP, authority, None, Duration::from_secs(20)).unwrap()
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for ScriptedUpstream {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// The head of a request; `None` if the client closed the connection instead.
async fn head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

async fn within<T>(event: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work).await.unwrap_or_else(|_| panic!("too late: {event}"))
}

/// Polls requests, which get no answer, until the upstream has accepted so many connections.
async fn until_accepted(
    upstream: &ScriptedUpstream,
    count: usize,
    asking: &mut [&mut (impl Future + Unpin)],
) {
    let accepted = poll_fn(|cx| {
        assert!(asking.iter_mut().all(|asking| asking.poll_unpin(cx).is_pending()));
        if upstream.accepted() == count {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    });
    within("the connections", accepted).await;
}

fn request(method: Method, body: GatewayBody) -> Request<GatewayBody> {
    Request::builder().method(method).uri("/a?b").header(HOST, "a").body(body).unwrap()
}

async fn send(
    upstream: &Upstream,
    request: Request<GatewayBody>,
) -> Result<Response<UpstreamBody>, UpstreamError> {
    let (progress, timers) = (BodyProgress::default(), SpareTimers::default());
    within("an answer", upstream.send(request, progress, &timers)).await
}

async fn get(upstream: &Upstream) -> Result<Bytes, UpstreamError> {
    let response = send(upstream, request(Method::GET, empty())).await?;
    Ok(within("a body", response.into_body().collect()).await?.to_bytes())
}

/// A body of the parts that are sent, of which `progress` is told as of a client's.
fn streamed(progress: &BodyProgress) -> (mpsc::UnboundedSender<Bytes>, GatewayBody) {
    let (parts, mut taken) = mpsc::unbounded_channel();
    let progress = progress.clone();
    let stream = futures_util::stream::poll_fn(move |cx| {
        let _held = &progress;
        taken.poll_recv(cx).map(|part| part.map(|part| Ok::<_, Infallible>(Frame::data(part))))
    });
    (parts, StreamBody::new(stream).map_err(|never| match never {}).boxed_unsync())
}

const HELLO: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

#[tokio::test]
async fn requests_in_turn_use_one_connection() {
    #[track_caller]
    fn check(seen: &str, answer: &Bytes, expected: &str) {
        assert_eq!(answer, expected, "{seen}");
    }
    let (heads, mut head_of) = mpsc::unbounded_channel();
    let upstream = ScriptedUpstream::start(move |_, mut stream| {
        let heads = heads.clone();
        async move {
            for number in 0.. {
                let Some(head) = head(&mut stream).await else { return };
                if head.contains("content-length: 4") {
                    stream.read_exact(&mut [0; 4]).await.unwrap();
                } else if head.contains("transfer-encoding: chunked") {
                    stream.read_exact(&mut [0; "4\r\nbody\r\n0\r\n\r\n".len()]).await.unwrap();
                }
                _ = heads.send(head);
                let answer: &[&str] = match number % 5 {
                    0 => &["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"],
                    1 => &["HTTP/1.1 204 No Content\r\n\r\n"],
                    2 => &["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", "o", "k"],
                    3 => &["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"],
                    _ => &[
                        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no",
                        "\r\n1\r\nk\r\n0\r\nX-A: b\r\n\r\n",
                    ],
                };
                for part in answer {
                    stream.write_all(part.as_bytes()).await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
        }
    })
    .await;
    let client = upstream.client();
    for number in 0..40 {
        let (progress, timers) = (BodyProgress::of_parts(), SpareTimers::default());
        let (request, progress) = match number / 5 % 3 {
            0 => (request(Method::GET, empty()), BodyProgress::default()),
            1 => (request(Method::POST, full("body")), BodyProgress::default()),
            _ => {
                let (parts, body) = streamed(&progress);
                parts.send(Bytes::from_static(b"body")).unwrap();
                (request(Method::POST, body), progress)
            }
        };
        let response = within("an answer", client.send(request, progress, &timers)).await.unwrap();
        let body = within("a body", response.into_body().collect()).await.unwrap().to_bytes();
        let head = head_of.recv().await.unwrap();
        check(&head, &body, if number % 5 % 2 == 0 { "ok" } else { "" });
        assert!(head.contains(" /a?b HTTP/1.1\r\nhost: a\r\n"), "{head}");
    }
    assert_eq!(upstream.accepted(), 1);
}

#[tokio::test]
async fn a_head_without_its_body_gives_the_connection_back() {
    let (upstream, _) =
        ScriptedUpstream::answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-a: b\r\n\r\n").await;
    let client = upstream.client();
    for _ in 0..3 {
        let response = send(&client, request(Method::HEAD, empty())).await.unwrap();
        assert!(response.body().is_end_stream());
    }
    assert_eq!(upstream.accepted(), 1);
}

#[tokio::test]
async fn a_request_is_polled_when_something_happens_and_not_for_what_it_does_itself() {
    let (upstream, _) = ScriptedUpstream::answering(HELLO).await;
    let client = upstream.client();
    get(&client).await.unwrap();
    for _ in 0..3 {
        let mut polls = 0;
        let mut asking = pin!(get(&client));
        poll_fn(|cx| {
            polls += 1;
            asking.as_mut().poll(cx)
        })
        .await
        .unwrap();
        assert_eq!(polls, 2, "the request is sent, and the answer is here");
    }
}

#[tokio::test]
async fn a_connection_that_the_upstream_closes_is_closed_at_once() {
    let (closed, mut is_closed) = mpsc::unbounded_channel();
    let upstream = ScriptedUpstream::start(move |number, mut stream| {
        let closed = closed.clone();
        async move {
            head(&mut stream).await;
            stream.write_all(HELLO).await.unwrap();
            stream.shutdown().await.unwrap();
            _ = closed.send((number, head(&mut stream).await));
        }
    })
    .await;
    let client = upstream.client();
    for number in 0..3 {
        assert_eq!(get(&client).await.unwrap(), "hello");
        let closed = within("the client closes it too", is_closed.recv()).await;
        assert_eq!(closed, Some((number, None)));
    }
    assert_eq!(upstream.accepted(), 3);
}

#[tokio::test]
async fn a_connection_is_idle_for_some_time_at_most() {
    let (upstream, mut closed) = ScriptedUpstream::answering(HELLO).await;
    let client = upstream.client();
    let advance = async |time| {
        // Else a clock that stands still would jump to the next timer.
        tokio::time::pause();
        tokio::time::advance(time).await;
        tokio::time::resume();
    };
    for number in 0..3 {
        get(&client).await.unwrap();
        advance(KEPT_IDLE - Duration::from_secs(1)).await;
        get(&client).await.unwrap();
        assert_eq!(upstream.accepted(), number + 1);
        advance(KEPT_IDLE).await;
        assert_eq!(within("it is closed", closed.recv()).await, Some(number));
    }
}

#[tokio::test]
async fn a_connection_that_is_not_at_its_end_is_not_used_again() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"[..],
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        // What nobody asked for.
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n",
    ] {
        let (upstream, mut closed) = ScriptedUpstream::answering(answer).await;
        let client = upstream.client();
        for number in 0..3 {
            assert_eq!(get(&client).await.unwrap(), "hello");
            assert_eq!(within("it is closed", closed.recv()).await, Some(number));
        }
    }
    // Nobody waits for the rest of a body.
    let (upstream, mut closed) =
        ScriptedUpstream::answering(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello").await;
    let client = upstream.client();
    for number in 0..3 {
        let mut body = send(&client, request(Method::GET, empty())).await.unwrap().into_body();
        let part = within("a part", body.frame()).await.unwrap().unwrap();
        assert_eq!(part.into_data().unwrap(), "hello");
        drop(body);
        assert_eq!(within("it is closed", closed.recv()).await, Some(number));
    }
    // Nor for an answer.
    let (upstream, mut closed) = ScriptedUpstream::answering(b"").await;
    let client = upstream.client();
    let mut asking = Box::pin(get(&client));
    until_accepted(&upstream, 1, &mut [&mut asking]).await;
    drop(asking);
    assert_eq!(within("it is closed", closed.recv()).await, Some(0));
}

#[tokio::test]
async fn a_body_that_ends_with_its_connection_is_whole() {
    let upstream = ScriptedUpstream::start(|_, mut stream| async move {
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhe").await.unwrap();
        stream.write_all(b"llo").await.unwrap();
    })
    .await;
    let client = upstream.client();
    assert_eq!(get(&client).await.unwrap(), "hello");
    assert_eq!(get(&client).await.unwrap(), "hello");
    assert_eq!(upstream.accepted(), 2);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_an_error() {
    for answer in [
        "",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        "no HTTP\r\n\r\n",
    ] {
        let upstream = ScriptedUpstream::start(move |_, mut stream| async move {
            head(&mut stream).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
        })
        .await;
        let client = upstream.client();
        for number in 1..3 {
            assert!(matches!(get(&client).await, Err(UpstreamError::Broken(_))), "{answer}");
            assert_eq!(upstream.accepted(), number, "it is asked once");
        }
    }
}

#[tokio::test]
async fn nobody_who_listens_is_no_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = Authority::try_from(listener.local_addr().unwrap().to_string()).unwrap();
    drop(listener);
    let client = Upstream::new(Scheme::HTTP, authority, None, Duration::from_secs(20)).unwrap();
    let refused = get(&client).await.unwrap_err();
    assert!(matches!(&refused, UpstreamError::Connect(cause) if cause == "connection refused"), "{refused}");
}

#[tokio::test]
async fn an_answer_to_a_request_that_is_not_whole_yet_arrives() {
    // It answers and closes, with the body unread.
    let upstream = ScriptedUpstream::start(|_, mut stream| async move {
        head(&mut stream).await;
        let answer = b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nno!";
        stream.write_all(answer).await.unwrap();
        stream.shutdown().await.unwrap();
        // With bytes unread a close would be a reset, which may be faster than the answer.
        _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    })
    .await;
    let client = upstream.client();
    let (progress, timers) = (BodyProgress::of_parts(), SpareTimers::default());
    let (parts, body) = streamed(&progress);
    parts.send(Bytes::from_static(b"a part")).unwrap();
    let asking = client.send(request(Method::POST, body), progress, &timers);
    let response = within("an early answer", asking).await.unwrap();
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let body = within("its body", response.into_body().collect()).await.unwrap();
    assert_eq!(body.to_bytes(), "no!");
    // Nobody takes more of the request.
    within("the request is dropped", parts.closed()).await;
}

#[tokio::test]
async fn the_rest_of_a_request_is_sent_while_nobody_takes_its_early_answer() {
    let (wholes, mut whole) = mpsc::unbounded_channel();
    let upstream = ScriptedUpstream::start(move |_, mut stream| {
        let wholes = wholes.clone();
        async move {
            head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe").await.unwrap();
            let mut body = Vec::new();
            while !body.ends_with(b"0\r\n\r\n") {
                body.push(stream.read_u8().await.unwrap());
            }
            _ = wholes.send(body.len());
            stream.write_all(b"llo").await.unwrap();
        }
    })
    .await;
    let client = upstream.client();
    let (progress, timers) = (BodyProgress::of_parts(), SpareTimers::default());
    let (parts, body) = streamed(&progress);
    let asking = client.send(request(Method::POST, body), progress, &timers);
    let response = within("an early answer", asking).await.unwrap();
    for _ in 0..100 {
        parts.send(Bytes::from_static(b"a part")).unwrap();
        tokio::task::yield_now().await;
    }
    drop(parts);
    assert!(within("all of the request", whole.recv()).await.unwrap() > 600);
    let body = within("the rest of the answer", response.into_body().collect()).await.unwrap();
    assert_eq!(body.to_bytes(), "hello");
}

#[tokio::test]
async fn an_answer_that_nobody_takes_holds_up_no_other() {
    const LENGTH: usize = 64 << 20;
    let upstream = ScriptedUpstream::start(|number, mut stream| async move {
        while head(&mut stream).await.is_some() {
            if number > 0 {
                stream.write_all(HELLO).await.unwrap();
                continue;
            }
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            for _ in 0..LENGTH / (64 << 10) {
                stream.write_all(&[b'x'; 64 << 10]).await.unwrap();
            }
        }
    })
    .await;
    let client = upstream.client();
    let mut large = send(&client, request(Method::GET, empty())).await.unwrap().into_body();
    for _ in 0..50 {
        assert_eq!(get(&client).await.unwrap(), "hello");
    }
    assert_eq!(upstream.accepted(), 2);
    let mut length = 0;
    let taking = async {
        while let Some(part) = large.frame().await {
            length += part.unwrap().into_data().unwrap().len();
        }
    };
    within("all of it", taking).await;
    assert_eq!(length, LENGTH);
    // Its connection is there again.
    let both = [get(&client), get(&client)].map(Box::pin);
    let [one, other] = both;
    let (one, other) = tokio::join!(one, other);
    assert!(one.is_ok() && other.is_ok());
}

/// Bodies in parts that come one by one, on several threads: one wake-up that is lost would be a request that ends never.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_part_of_an_answer_is_missed() {
    let upstream = ScriptedUpstream::start(|_, mut stream| async move {
        while let Some(head) = head(&mut stream).await {
            let count = head.lines().count();
            let mut body = Vec::new();
            while head.contains("chunked") && !body.ends_with(b"0\r\n\r\n") {
                body.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
            for part in 0..20 {
                let parts: [&[u8]; 3] = [b"5\r\nhe", b"llo", b"\r\n"];
                for bytes in parts {
                    stream.write_all(bytes).await.unwrap();
                    match (part + count) % 4 {
                        0 => tokio::time::sleep(Duration::from_micros(200)).await,
                        1 => {}
                        _ => tokio::task::yield_now().await,
                    }
                }
            }
            stream.write_all(b"0\r\n\r\n").await.unwrap();
        }
    })
    .await;
    let client = upstream.client();
    let asking: Vec<_> = (0..32)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                for _ in 0..20 {
                    assert_eq!(get(&client).await.unwrap().len(), 100);
                    // A part of the request that comes late.
                    let (progress, timers) = (BodyProgress::of_parts(), SpareTimers::default());
                    let (parts, body) = streamed(&progress);
                    let sending = tokio::spawn(async move {
                        for _ in 0..3 {
                            tokio::task::yield_now().await;
                            parts.send(Bytes::from_static(b"a part")).unwrap();
                        }
                    });
                    let asking = client.send(request(Method::POST, body), progress, &timers);
                    let response = within("an answer", asking).await;
                    let body = within("a body", response.unwrap().into_body().collect()).await.unwrap();
                    assert_eq!(body.to_bytes().len(), 100);
                    sending.await.unwrap();
                }
            })
        })
        .collect();
    for one in asking {
        within("all answers", one).await.unwrap();
    }
}

/// Serves TLS on as many connections as it is told, and no more than the socket of the others.
async fn over_tls(
    handshakes: usize,
    go: Arc<Semaphore>,
) -> (ScriptedUpstream, tempfile::NamedTempFile, Upstream) {
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["127.0.0.1".to_owned()];
    let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    let mut ca = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut ca, certificate.pem().as_bytes()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let upstream = ScriptedUpstream::start(move |number, stream| {
        let (acceptor, go) = (acceptor.clone(), Arc::clone(&go));
        async move {
            if number >= handshakes {
                return std::future::pending().await;
            }
            let mut stream = acceptor.accept(stream).await.unwrap();
            while head(&mut stream).await.is_some() {
                go.acquire().await.unwrap().forget();
                stream.write_all(HELLO).await.unwrap();
            }
        }
    })
    .await;
    let authority = Authority::try_from(upstream.addr.to_string()).unwrap();
    let client = Upstream::new(Scheme::HTTPS, authority, Some(ca.path()), Duration::from_secs(20)).unwrap();
    (upstream, ca, client)
}

#[tokio::test]
async fn a_connection_over_tls_is_used_again() {
    let go = Arc::new(Semaphore::new(0));
    let (upstream, _ca, client) = over_tls(2, Arc::clone(&go)).await;
    for _ in 0..5 {
        go.add_permits(1);
        assert_eq!(get(&client).await.unwrap(), "hello");
    }
    assert_eq!(upstream.accepted(), 1);
}

#[tokio::test]
async fn a_connection_that_becomes_idle_serves_who_waits_for_a_new_one() {
    let go = Arc::new(Semaphore::new(0));
    let (upstream, _ca, client) = over_tls(1, Arc::clone(&go)).await;
    let mut first = Box::pin(get(&client));
    until_accepted(&upstream, 1, &mut [&mut first]).await;
    let mut second = Box::pin(get(&client));
    // The handshake of the second is answered by nobody.
    until_accepted(&upstream, 2, &mut [&mut first, &mut second]).await;
    go.add_permits(2);
    let (first, second) = within("both answers", async { tokio::join!(first, second) }).await;
    assert_eq!((first.unwrap(), second.unwrap()), (Bytes::from("hello"), Bytes::from("hello")));
    assert_eq!(upstream.accepted(), 2);
}

#[tokio::test]
async fn idle_connections_are_bounded_and_go_with_their_client() {
    let (answers, _) = tokio::sync::broadcast::channel::<()>(1);
    let (closed, mut is_closed) = mpsc::unbounded_channel();
    let go = answers.clone();
    let upstream = ScriptedUpstream::start(move |number, mut stream| {
        let (mut go, closed) = (go.subscribe(), closed.clone());
        async move {
            head(&mut stream).await;
            _ = go.recv().await;
            stream.write_all(HELLO).await.unwrap();
            while head(&mut stream).await.is_some() {}
            _ = closed.send(number);
        }
    })
    .await;
    let client = upstream.client();
    let asking: Vec<_> = (0..MAX_IDLE + 3)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { get(&client).await.unwrap() })
        })
        .collect();
    within("all are asked", async {
        while answers.receiver_count() < MAX_IDLE + 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    answers.send(()).unwrap();
    for one in asking {
        within("an answer", one).await.unwrap();
    }
    for _ in 0..3 {
        within("one is too many", is_closed.recv()).await.unwrap();
    }
    drop(client);
    for _ in 0..MAX_IDLE {
        within("the others are closed", is_closed.recv()).await.unwrap();
    }
}

#[tokio::test]
async fn a_connection_that_was_put_back_before_anybody_waited_is_taken() {
    let (upstream, _) = ScriptedUpstream::answering(b"HTTP/1.1 204 No Content\r\n\r\n").await;
    let client = upstream.client();
    get(&client).await.unwrap();
    let connection = within("a connection", client.pool.connect()).await.unwrap();
    assert!(client.pool.take().is_none(), "it is the one that was idle");
    drop(connection);
}
