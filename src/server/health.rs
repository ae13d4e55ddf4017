//! `grpc.health.v1.Health`, derived from the phase of the process: one state for the server (`""`) and each of
//! its services.
//!
//! The ready-made health service answers a watch of an unknown name with NOT_FOUND, where the protocol wants
//! SERVICE_UNKNOWN and an open stream, and its watches never end, so that one watching client would hold each
//! shutdown up to the hard deadline.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio_stream::Stream;
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::server::lifecycle::{Lifecycle, Phase};

/// Answers for the names it was made with and for `""`.
#[derive(Debug)]
pub(super) struct HealthService {
    lifecycle: Lifecycle,
    names: Arc<[&'static str]>,
}

impl HealthService {
    pub(super) fn new(lifecycle: Lifecycle, names: &[&'static str]) -> Self {
        Self { lifecycle, names: names.into() }
    }

    fn knows(&self, name: &str) -> bool {
        name.is_empty() || self.names.contains(&name)
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    type WatchStream = HealthStream;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if !self.knows(&request.get_ref().service) {
            return Err(Status::not_found("the service is not known"));
        }
        let phase = *self.lifecycle.phases().borrow();
        Ok(Response::new(response(serving_status(phase))))
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(HealthStream {
            phases: WatchStream::new(self.lifecycle.phases()),
            known: self.knows(&request.get_ref().service),
            last: None,
            ended: false,
        }))
    }
}

/// The status now and each change of it. Ends after the phase became [`Phase::Draining`].
#[derive(Debug)]
pub(super) struct HealthStream {
    phases: WatchStream<Phase>,
    known: bool,
    last: Option<ServingStatus>,
    ended: bool,
}

impl Stream for HealthStream {
    type Item = Result<HealthCheckResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while !self.ended {
            let Some(phase) = ready!(Pin::new(&mut self.phases).poll_next(cx)) else {
                break;
            };
            self.ended = phase == Phase::Draining;
            let status = if self.known { serving_status(phase) } else { ServingStatus::ServiceUnknown };
            if self.last.replace(status) != Some(status) {
                return Poll::Ready(Some(Ok(response(status))));
            }
        }
        Poll::Ready(None)
    }
}

fn serving_status(phase: Phase) -> ServingStatus {
    match phase {
        Phase::Starting | Phase::Draining => ServingStatus::NotServing,
        Phase::Serving => ServingStatus::Serving,
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_stream::StreamExt;
    use tonic::Code;

    const NAME: &str = "scopeward.v1.ScopePolicyService";

    fn ask(name: &str) -> Request<HealthCheckRequest> {
        Request::new(HealthCheckRequest { service: name.to_owned() })
    }

    async fn next(stream: &mut HealthStream) -> Option<ServingStatus> {
        let response = stream.next().await?.expect("health never fails");
        Some(response.status())
    }

    #[tokio::test]
    async fn every_name_follows_the_phase() {
        let lifecycle = Lifecycle::new();
        let health = HealthService::new(lifecycle.clone(), &[NAME]);
        for (step, expected) in [
            (None::<fn(&Lifecycle)>, ServingStatus::NotServing),
            (Some(Lifecycle::serve), ServingStatus::Serving),
            (Some(Lifecycle::drain), ServingStatus::NotServing),
        ] {
            if let Some(step) = step {
                step(&lifecycle);
            }
            for name in ["", NAME] {
                let response = health.check(ask(name)).await.expect("the name is known");
                assert_eq!(response.into_inner().status(), expected, "{name}");
            }
        }
        let error = health.check(ask("other")).await.expect_err("the name is not known");
        assert_eq!(error.code(), Code::NotFound);
    }

    #[tokio::test]
    async fn watch_sends_changes_and_ends_when_draining() {
        let lifecycle = Lifecycle::new();
        let health = HealthService::new(lifecycle.clone(), &[NAME]);
        let mut stream = health.watch(ask(NAME)).await.expect("a stream").into_inner();
        assert_eq!(next(&mut stream).await, Some(ServingStatus::NotServing));
        lifecycle.serve();
        assert_eq!(next(&mut stream).await, Some(ServingStatus::Serving));
        lifecycle.drain();
        assert_eq!(next(&mut stream).await, Some(ServingStatus::NotServing));
        assert_eq!(next(&mut stream).await, None);
    }

    #[tokio::test]
    async fn watch_of_an_unknown_name_says_so_and_stays_open() {
        let lifecycle = Lifecycle::new();
        let health = HealthService::new(lifecycle.clone(), &[NAME]);
        let mut stream = health.watch(ask("other")).await.expect("a stream").into_inner();
        assert_eq!(next(&mut stream).await, Some(ServingStatus::ServiceUnknown));
        lifecycle.serve();
        let waker = std::task::Waker::noop();
        assert!(Pin::new(&mut stream).poll_next(&mut Context::from_waker(waker)).is_pending());
        lifecycle.drain();
        assert_eq!(next(&mut stream).await, None);
    }
}
