//! A peer below gRPC, that does what no client library does.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use prost::Message;
use tokio::net::TcpStream;
use tonic::{Code, Status};

/// A connection.
#[derive(Clone)]
pub(crate) struct Peer {
    send: SendRequest<Bytes>,
}

/// A call whose headers are sent.
pub(crate) struct Call {
    pub(crate) body: SendStream<Bytes>,
    pub(crate) response: ResponseFuture,
}

impl Peer {
    /// Connects with a receive window of `window` bytes for each stream.
    pub(crate) async fn connect(addr: SocketAddr, window: u32) -> Self {
        let stream = TcpStream::connect(addr).await.expect("a connection");
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(window);
        let (send, connection) = builder.handshake(stream).await.expect("HTTP/2");
        // Ends with the connection.
        tokio::spawn(connection);
        Self { send }
    }

    /// Sends the headers of a call.
    pub(crate) async fn open(&self, path: &str, headers: &[(&str, &str)]) -> Call {
        self.try_open(path, headers).await.expect("the connection takes a stream")
    }

    /// Sends the headers of a call, unless the connection takes no more.
    pub(crate) async fn try_open(&self, path: &str, headers: &[(&str, &str)]) -> Result<Call, h2::Error> {
        let mut request = Request::post(format!("http://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(()).expect("a request")).await
    }

    /// Sends these headers and no others.
    pub(crate) async fn send(&self, request: Request<()>) -> Result<Call, h2::Error> {
        let mut send = self.send.clone().ready().await?;
        let (response, body) = send.send_request(request, false)?;
        Ok(Call { body, response })
    }

    /// Sends a whole call whose body is `body`.
    pub(crate) async fn call(&self, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Call {
        let mut call = self.open(path, headers).await;
        call.body.send_data(body.into(), true).expect("the stream is open");
        call
    }
}

impl Call {
    /// How the call ends; what comes before the end is read and dropped. CANCELLED if it is reset.
    pub(crate) async fn end(self) -> Status {
        let (headers, mut body) = match self.response.await {
            Ok(response) => response.into_parts(),
            Err(error) => return Status::cancelled(error.to_string()),
        };
        match Status::from_header_map(&headers.headers) {
            Some(status) => status,
            None => end_of(&mut body).await,
        }
    }
}

/// The status in the trailers of a response.
async fn end_of(body: &mut RecvStream) -> Status {
    while let Some(chunk) = body.data().await {
        match chunk {
            Ok(chunk) => _ = body.flow_control().release_capacity(chunk.len()),
            Err(error) => return Status::cancelled(error.to_string()),
        }
    }
    let trailers: HeaderMap = match body.trailers().await {
        Ok(trailers) => trailers.unwrap_or_default(),
        Err(error) => return Status::cancelled(error.to_string()),
    };
    Status::from_header_map(&trailers).unwrap_or_else(|| Status::new(Code::Unknown, "no status"))
}

/// A message with its length before it.
pub(crate) fn framed(message: &impl Message) -> Vec<u8> {
    let length = u32::try_from(message.encoded_len()).expect("a short message");
    [&[0][..], &length.to_be_bytes(), &message.encode_to_vec()].concat()
}

/// The window of a client that takes what comes.
pub(crate) const WIDE: u32 = 1 << 20;
