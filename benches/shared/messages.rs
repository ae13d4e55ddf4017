//! A fixed loop from the bytes of requests to the bytes of answers: reading, deciding and writing, without a call around it.

use std::hint::black_box;
use std::time::SystemTime;

use prost::Message;
use scopeward::call;
use scopeward::decision::{authorize, check_limits};
use scopeward::proto::borrowed::read_batch;
use scopeward::rpc::encode::{EncodedCheck, WireMessage};
use scopeward::rpc::v1;
use scopeward::store::Active;
use uuid::Uuid;

use super::question::{BATCH, authorize as request};

/// Answers a batch of [`BATCH`] authorize requests of three registered scopes so many times; returns how many bytes that are.
pub fn answer(set: scopeward::policy::PolicySet, rounds: u64) -> usize {
    let active = Active { set, generation: 1, load_time: SystemTime::UNIX_EPOCH };
    let three = "openid mcp:read mcp:write";
    let checks = (0..BATCH).map(|_| request(three, three)).collect();
    let message = v1::BatchCheckAuthorizeScopesRequest { checks }.encode_to_vec();
    let mut bytes = 0;
    for round in 0..rounds {
        let mut response = Vec::new();
        for (request, _) in read_batch(black_box(&message), BATCH as usize).expect("it is in plain form") {
            let question = call::authorize(&request);
            check_limits(question.audiences, request.correlation_id).expect("it is within the limits");
            let answer = authorize::check(&active.set, &question);
            assert!(answer.is_allowed());
            EncodedCheck::new(&answer, &active, &Uuid::from_u128(round.into()).into()).encode(&mut response);
        }
        bytes += black_box(response).len();
    }
    bytes
}
