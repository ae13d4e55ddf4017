//! Who gets in: refuses calls while the server drains or has too many in flight. Health and reflection always
//! get in, because they are asked when things go badly.
//!
//! Costs an atomic addition and subtraction for each call.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use http::{Request, Response};
use tonic::Status;
use tower::{Layer, Service};

use crate::rpc::error::RpcError;
use crate::server::lifecycle::Lifecycle;

/// Lets at most a number of calls in at once, and none when draining.
#[derive(Clone, Debug)]
pub(super) struct AdmissionLayer {
    lifecycle: Lifecycle,
    in_flight: Arc<AtomicUsize>,
    max_in_flight: usize,
}

impl AdmissionLayer {
    pub(super) fn new(lifecycle: Lifecycle, max_in_flight: usize) -> Self {
        Self { lifecycle, in_flight: Arc::default(), max_in_flight }
    }
}

impl<S> Layer<S> for AdmissionLayer {
    type Service = Admission<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Admission { inner, rules: self.clone() }
    }
}

/// The service of [`AdmissionLayer`].
#[derive(Clone, Debug)]
pub(super) struct Admission<S> {
    inner: S,
    rules: AdmissionLayer,
}

impl<S, A, B> Service<Request<A>> for Admission<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Unpin,
    B: Default,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = AdmissionFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let AdmissionLayer { lifecycle, in_flight, max_in_flight } = &self.rules;
        let (place, number) = Place::take(in_flight);
        let refusal = if lifecycle.is_draining() {
            Some(RpcError::Draining)
        } else if number > *max_in_flight {
            Some(RpcError::Shedding)
        } else {
            None
        };
        match refusal {
            Some(error) if !always_admitted(request.uri().path()) => AdmissionFuture::Refused(Some(error)),
            _ => AdmissionFuture::Admitted { inner: self.inner.call(request), _place: place },
        }
    }
}

fn always_admitted(path: &str) -> bool {
    path.starts_with("/grpc.health.") || path.starts_with("/grpc.reflection.")
}

/// A place among the calls in flight, given back when it is dropped: whether the call ended or was cancelled.
#[derive(Debug)]
pub(super) struct Place {
    in_flight: Arc<AtomicUsize>,
}

impl Place {
    /// Takes one, and says how many are taken then.
    fn take(in_flight: &Arc<AtomicUsize>) -> (Self, usize) {
        let number = in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        (Self { in_flight: Arc::clone(in_flight) }, number)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The answer of [`Admission`] to be.
#[derive(Debug)]
pub(super) enum AdmissionFuture<F> {
    /// The call got in.
    Admitted { inner: F, _place: Place },
    /// The call did not; empty once that has been said.
    Refused(Option<RpcError>),
}

impl<F, B, E> Future for AdmissionFuture<F>
where
    F: Future<Output = Result<Response<B>, E>> + Unpin,
    B: Default,
{
    type Output = Result<Response<B>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Admitted { inner, .. } => Pin::new(inner).poll(cx),
            Self::Refused(error) => match error.take() {
                Some(error) => Poll::Ready(Ok(Status::from(error).into_http())),
                None => Poll::Pending,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::future::{Pending, pending};
    use tonic_types::StatusExt;

    const DECIDE: &str = "/scopeward.v1.ScopePolicyService/CheckAuthorizeScopes";

    /// A service whose calls never end.
    #[derive(Clone)]
    struct Endless;

    impl Service<Request<()>> for Endless {
        type Response = Response<()>;
        type Error = Infallible;
        type Future = Pending<Result<Response<()>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<()>) -> Self::Future {
            pending()
        }
    }

    type Call = AdmissionFuture<Pending<Result<Response<()>, Infallible>>>;

    fn call(service: &mut Admission<Endless>, path: &str) -> Call {
        service.call(Request::builder().uri(path).body(()).expect("a request"))
    }

    /// The reason of the refusal, if the call was refused.
    #[track_caller]
    fn refusal(mut call: Call) -> Option<String> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match Pin::new(&mut call).poll(&mut cx) {
            Poll::Pending => None,
            Poll::Ready(Ok(response)) => {
                let status = Status::from_header_map(response.headers()).expect("a refusal has a status");
                Some(status.get_details_error_info().expect("an ErrorInfo").reason)
            }
        }
    }

    #[test]
    fn a_place_is_free_again_when_its_call_is_dropped() {
        let mut service = AdmissionLayer::new(Lifecycle::new(), 2).layer(Endless);
        let first = call(&mut service, DECIDE);
        let second = call(&mut service, DECIDE);
        assert_eq!(refusal(call(&mut service, DECIDE)).as_deref(), Some("OVERLOADED"));
        drop(first);
        assert_eq!(refusal(call(&mut service, DECIDE)), None);
        assert_eq!(refusal(second), None);
        assert_eq!(service.rules.in_flight.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn health_and_reflection_get_in_when_all_places_are_taken() {
        let mut service = AdmissionLayer::new(Lifecycle::new(), 0).layer(Endless);
        assert_eq!(refusal(call(&mut service, DECIDE)).as_deref(), Some("OVERLOADED"));
        for path in
            ["/grpc.health.v1.Health/Check", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"]
        {
            assert_eq!(refusal(call(&mut service, path)), None);
        }
    }

    #[test]
    fn calls_are_refused_while_draining() {
        let lifecycle = Lifecycle::new();
        let mut service = AdmissionLayer::new(lifecycle.clone(), 10).layer(Endless);
        lifecycle.serve();
        let before = call(&mut service, DECIDE);
        lifecycle.drain();
        assert_eq!(refusal(call(&mut service, DECIDE)).as_deref(), Some("DRAINING"));
        assert_eq!(refusal(call(&mut service, "/grpc.health.v1.Health/Check")), None);
        assert_eq!(refusal(before), None);
    }
}
