//! The machine over sequences of attempts and moments: tables of what happens, and properties of all sequences.

use proptest::prelude::*;

use super::*;
use crate::policy::check::check;
use crate::policy::document::Document;

const QUIET: Duration = Duration::from_secs(2);

const ONE: &str = "audiences: {one: {scopesSupported: [a]}}";
const ONE_WIDER: &str = "audiences: {one: {scopesSupported: [a, b]}}";
const TWO: &str = "audiences: {one: {scopesSupported: [a]}, two: {scopesSupported: [a]}}";
const OTHER: &str = "audiences: {two: {scopesSupported: [a]}}";
const BROKEN: &str = "audiences: [";

fn read(text: &str) -> Result<Accepted, Findings> {
    let file: Arc<str> = "policy.yaml".into();
    check(&file, &[Document::read(&file, text)])
}

/// The machine, and the clock that it is driven by.
struct Rig {
    state: ReloadState,
    start: Instant,
    now: Duration,
    /// What requests are answered by.
    current: Option<Arc<Active>>,
    /// Every state that was shown.
    shown: Vec<StatusChange>,
}

impl Rig {
    fn new() -> Self {
        let start = Instant::now();
        Self { state: ReloadState::new(QUIET), start, now: Duration::ZERO, current: None, shown: Vec::new() }
    }

    fn at(&self, seconds: f64) -> Instant {
        self.start + Duration::from_secs_f64(seconds)
    }

    fn moment(&self) -> Moment {
        // The wall clock stands still: nothing may be measured with it.
        Moment { instant: self.start + self.now, time: SystemTime::UNIX_EPOCH }
    }

    fn attempt(&mut self, seconds: f64, found: Found, last_write: Option<f64>) -> Transition {
        self.now = Duration::from_secs_f64(seconds);
        let last_write = last_write.map(|seconds| self.at(seconds));
        let transition = self.state.apply(Attempt { found, last_write }, self.moment());
        self.take(transition)
    }

    fn take(&mut self, transition: Transition) -> Transition {
        self.current = transition.serve.clone().or(self.current.take());
        self.shown.extend(transition.status.clone());
        transition
    }

    /// An attempt on this text, whose bytes are told apart by its address.
    fn text(&mut self, seconds: f64, text: &str) -> Transition {
        self.attempt(seconds, found(text), None)
    }

    fn generation(&self) -> u64 {
        self.current.as_ref().map_or(0, |active| active.generation)
    }

    fn again(&self, transition: &Transition) -> Option<f64> {
        transition.look_again.map(|at| (at - self.start).as_secs_f64())
    }
}

fn found(text: &str) -> Found {
    use sha2::Digest as _;
    let bytes = sha2::Sha256::digest(text).into();
    match read(text) {
        Ok(accepted) => Found::Valid { accepted, bytes },
        Err(findings) => Found::Invalid { findings, bytes },
    }
}

#[test]
fn an_invalid_set_leaves_the_last_good_one_serving() {
    let mut rig = Rig::new();
    assert_eq!(rig.text(0.0, BROKEN).verdict, Some(Verdict::Rejected));
    assert_eq!(rig.generation(), 0, "there is nothing to serve yet");
    assert_eq!(rig.text(1.0, ONE).verdict, Some(Verdict::Accepted));
    let rejected = rig.text(2.0, BROKEN);
    assert_eq!(rejected.verdict, Some(Verdict::Rejected));
    let change = rejected.change.expect("a rejection is audited");
    assert!(!change.accepted && change.finding_count == 1 && change.generation == 1, "{change:?}");
    let same = rig.text(3.0, BROKEN);
    assert!(same.verdict.is_none() && same.status.is_none() && same.change.is_none(), "nothing new to say");
    for second in [4.0, 5.0] {
        let gone = rig.attempt(second, Found::Missing("gone".to_owned()), None);
        assert_eq!(gone.verdict.is_some(), second < 5.0);
    }
    let back = rig.text(6.0, ONE);
    assert_eq!((back.verdict, rig.generation()), (Some(Verdict::Unchanged), 1));
    assert!(matches!(back.log[..], [LogLine::Recovered { .. }]), "{:?}", back.log);
    let change = back.change.expect("the recovery is audited");
    assert!(change.accepted && change.generation == 1 && change.change_count == 0, "{change:?}");
    assert_eq!(change.digest, change.previous_digest, "nothing changed");
    let accepted = rig.text(7.0, ONE_WIDER);
    let change = accepted.change.expect("audited");
    assert_eq!((change.change_count, change.widening_count, change.generation), (1, 1, 2));
    assert!(change.changes[0].contains("scopesSupported +b"), "{change:?}");
}

#[test]
fn a_removal_waits_for_quiet_and_an_addition_does_not() {
    let mut rig = Rig::new();
    rig.text(0.0, ONE);
    assert_eq!(rig.text(1.0, TWO).verdict, Some(Verdict::Accepted));
    let waiting = rig.text(10.0, ONE);
    assert_eq!((waiting.verdict, rig.again(&waiting)), (None, Some(12.0)));
    // Another shorter state: the quiet time starts again.
    let waiting = rig.text(11.0, OTHER);
    assert_eq!(rig.again(&waiting), Some(13.0));
    assert!(rig.text(12.0, ONE).verdict.is_none());
    assert_eq!(rig.generation(), 2);
    assert_eq!(rig.text(14.0, ONE).verdict, Some(Verdict::Accepted));
    assert_eq!(rig.generation(), 3);
}

#[test]
fn what_waits_is_shown_with_its_end_until_it_is_over() {
    let mut rig = Rig::new();
    // In seconds from now: the wall clock of the machine stands still.
    let shown = |rig: &Rig| {
        let until = rig.shown.last().and_then(|shown| shown.removal_waits_until);
        until.map(|until| until.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64())
    };
    rig.text(0.0, TWO);
    assert_eq!(shown(&rig), None);
    rig.text(1.0, ONE);
    assert_eq!(shown(&rig), Some(2.0));
    // A look without a write is nothing new to say, a write is.
    let states = rig.shown.len();
    rig.text(2.0, ONE);
    assert_eq!(rig.shown.len(), states);
    rig.attempt(2.5, found(ONE), Some(2.0));
    assert_eq!(shown(&rig), Some(1.5));
    // What cannot serve does not wait.
    rig.text(3.0, BROKEN);
    assert_eq!(shown(&rig), None);
    rig.text(4.0, ONE);
    assert_eq!(shown(&rig), Some(2.0));
    assert_eq!(rig.text(6.0, ONE).verdict, Some(Verdict::Accepted));
    assert_eq!(shown(&rig), None);
}

#[test]
fn a_half_written_file_that_is_completed_never_serves() {
    let mut rig = Rig::new();
    rig.text(0.0, TWO);
    assert!(rig.text(1.0, ONE).verdict.is_none());
    assert_eq!(rig.text(2.0, TWO).verdict, Some(Verdict::Unchanged));
    assert!(rig.text(3.0, TWO).verdict.is_none());
    assert_eq!(rig.generation(), 1);
}

#[test]
fn every_write_starts_the_wait_again_though_the_bytes_are_the_same() {
    let mut rig = Rig::new();
    rig.text(0.0, TWO);
    rig.text(1.0, ONE);
    // The file is rewritten as it is; the planned looks see the same bytes each time.
    for (second, write) in [(3.0, 2.9), (4.9, 4.5), (6.5, 6.2)] {
        let waiting = rig.attempt(second, found(ONE), Some(write));
        assert_eq!((waiting.verdict, rig.again(&waiting)), (None, Some(write + 2.0)));
    }
    assert_eq!(rig.attempt(8.2, found(ONE), Some(6.2)).verdict, Some(Verdict::Accepted));
}

#[test]
fn a_removal_that_is_never_left_alone_is_trouble_and_does_not_serve() {
    let mut rig = Rig::new();
    rig.text(0.0, TWO);
    let mut lines = 0;
    for second in 1..120 {
        let second = f64::from(second);
        let transition = rig.attempt(second, found(ONE), Some(second));
        assert_eq!(transition.verdict, None);
        lines += transition.log.iter().filter(|line| matches!(line, LogLine::Troubled(_))).count();
        let trouble = rig.shown.last().and_then(|shown| shown.trouble.clone());
        assert_eq!(trouble.is_some(), second >= 31.0, "{second}");
    }
    assert_eq!((lines, rig.generation()), (1, 1));
    assert_eq!(rig.shown.last().and_then(|shown| shown.trouble.clone()), Some(SourceTrouble::NeverQuiet));
    // It is left alone at last.
    assert_eq!(rig.attempt(121.5, found(ONE), Some(119.0)).verdict, Some(Verdict::Accepted));
    assert_eq!(rig.shown.last().map(|shown| shown.trouble.is_none()), Some(true));
}

#[test]
fn a_removal_after_a_long_rejected_state_waits_for_quiet_like_any_other() {
    let mut rig = Rig::new();
    rig.text(0.0, TWO);
    rig.text(1.0, ONE);
    assert_eq!(rig.text(2.0, BROKEN).verdict, Some(Verdict::Rejected));
    // The broken file was there for an hour; the next removal is another edit.
    let waiting = rig.text(3602.0, ONE);
    assert_eq!((waiting.verdict, rig.again(&waiting)), (None, Some(3604.0)));
    assert!(rig.shown.last().is_some_and(|shown| shown.trouble.is_none()));
}

#[test]
fn the_quiet_time_starts_again_after_bytes_that_were_rejected_before() {
    let mut rig = Rig::new();
    rig.text(0.0, TWO);
    rig.text(1.0, BROKEN);
    rig.text(2.0, ONE);
    rig.text(3.0, BROKEN);
    let waiting = rig.text(4.0, ONE);
    assert_eq!((waiting.verdict, rig.again(&waiting)), (None, Some(6.0)));
}

#[test]
fn every_kind_of_thing_that_disappears_waits() {
    const FULL: &str = "\
guardrails: {forbiddenScopes: [root], privilegedScopes: [admin], maxBaselineClientScopes: 3}
audiences:
  api:
    scopesSupported: [a.b, b]
    scopeMatching: hierarchic
    authorization: {omittedScope: reject, stepUpScopes: [b]}
    clientRules:
    - {name: one, when: {source: dcr, clientName: X*}, baselineClientScopes: [b]}
  other: {scopesSupported: [x]}
";
    for (part, with) in [
        ("    scopeMatching: hierarchic\n", ""),
        ("omittedScope: reject, ", ""),
        (", stepUpScopes: [b]", ""),
        (", clientName: X*", ""),
        ("source: dcr, ", ""),
        (
            "    clientRules:\n    - {name: one, when: {source: dcr, clientName: X*}, baselineClientScopes: [b]}\n",
            "",
        ),
        ("  other: {scopesSupported: [x]}\n", ""),
        ("forbiddenScopes: [root], ", ""),
        (", privilegedScopes: [admin]", ""),
        (", maxBaselineClientScopes: 3", ""),
        ("[root]", "[]"),
        ("[a.b, b]\n", "[b]\n"),
        (
            "guardrails: {forbiddenScopes: [root], privilegedScopes: [admin], maxBaselineClientScopes: 3}\n",
            "",
        ),
    ] {
        let shorter = FULL.replace(part, with);
        assert_ne!(shorter, FULL, "{part:?}");
        let mut rig = Rig::new();
        assert_eq!(rig.text(0.0, FULL).verdict, Some(Verdict::Accepted));
        let waiting = rig.text(1.0, &shorter);
        assert_eq!((waiting.verdict, rig.again(&waiting)), (None, Some(3.0)), "without {part:?}");
        assert_eq!(rig.text(1.5, FULL).verdict, Some(Verdict::Unchanged), "{part:?}");
        rig.text(2.0, &shorter);
        let served = rig.text(4.0, &shorter).verdict;
        // A guardrail that nothing is near to makes no difference for now.
        let expected = if part.contains("maxBaseline") && part.starts_with(',') {
            Verdict::Unchanged
        } else {
            Verdict::Accepted
        };
        assert_eq!(served, Some(expected), "{part:?}");
    }
}

#[test]
fn what_changes_no_decision_serves_without_a_new_generation() {
    let mut rig = Rig::new();
    rig.text(0.0, "audiences: {one: {scopesSupported: [a]}}");
    let rewritten = rig.text(1.0, "audiences: {one: {scopesSupported: [a]}} # comment");
    assert_eq!(rewritten.verdict, Some(Verdict::Unchanged));
    assert!(rewritten.serve.is_some() && rewritten.log.is_empty() && rewritten.change.is_none());
    assert_eq!(rig.generation(), 1);
}

#[test]
fn a_restored_set_serves_until_the_files_are_valid() {
    let mut rig = Rig::new();
    let moment = rig.moment();
    let restored = rig.state.restore(read(ONE).unwrap(), moment);
    let restored = rig.take(restored);
    assert!(restored.change.is_some_and(|change| change.accepted && change.generation == 1));
    assert_eq!(rig.text(1.0, BROKEN).verdict, Some(Verdict::Rejected));
    assert_eq!(rig.generation(), 1);
    // The same content as the restored set: nothing new, and said to be fine again.
    let back = rig.text(2.0, ONE);
    assert!(matches!(back.log[..], [LogLine::Recovered { .. }]));
    assert_eq!(rig.text(3.0, ONE_WIDER).verdict, Some(Verdict::Accepted));
    assert_eq!(rig.generation(), 2);
}

#[test]
fn errors_of_the_system_and_files_that_keep_changing_are_no_verdict() {
    let failed = || Found::Failed("too many open files".to_owned());
    let unstable = || Found::Unstable { names: vec!["a.yaml".to_owned()] };
    for (found, retry) in [(&failed as &dyn Fn() -> Found, 0.5), (&unstable, 0.1)] {
        let mut rig = Rig::new();
        rig.text(0.0, ONE);
        for second in 1..8 {
            let second = f64::from(second);
            let transition = rig.attempt(second, found(), None);
            assert!(
                transition.verdict.is_none() && transition.serve.is_none() && transition.change.is_none()
            );
            let again = rig.again(&transition).expect("tried again");
            assert!((again - second - retry).abs() < 0.001 && retry < 1.0);
            let lasts = second >= 6.0;
            assert_eq!(rig.shown.last().is_some_and(|shown| shown.trouble.is_some()), lasts, "{second}");
        }
        assert_eq!(rig.generation(), 1);
        let over = rig.attempt(9.0, Found::Known, None);
        assert!(matches!(over.log[..], [LogLine::Untroubled]));
        assert!(rig.shown.last().is_some_and(|shown| shown.trouble.is_none()));
    }
}

/// A step of a random sequence.
#[derive(Clone, Debug)]
enum ReadMoment {
    Text(usize),
    Known,
    Gone,
    Unstable,
    Failed,
}

const TEXTS: [&str; 6] =
    [ONE, ONE_WIDER, TWO, OTHER, BROKEN, "audiences: {one: {scopesSupported: [a], colour: red}}"];

fn steps() -> impl Strategy<Value = Vec<(ReadMoment, u64, bool)>> {
    let step = prop_oneof![
        6 => (0..TEXTS.len()).prop_map(ReadMoment::Text),
        1 => Just(ReadMoment::Known),
        1 => Just(ReadMoment::Gone),
        1 => Just(ReadMoment::Unstable),
        1 => Just(ReadMoment::Failed),
    ];
    prop::collection::vec((step, 0u64..4000, any::<bool>()), 1..60)
}

proptest! {
    // Whatever the sequence: only valid sets serve, a removal only once nothing was written for the quiet time,
    // generations grow by one exactly where the meaning changes, and what is shown is what serves.
    #[test]
    fn any_sequence_keeps_the_promises(steps in steps()) {
        let mut rig = Rig::new();
        let mut millis = 0;
        // When the files last became what they are, or were written.
        let (mut last, mut touched) = (None, 0);
        let mut digests: Vec<String> = Vec::new();
        for (step, pause, is_written) in steps {
            millis += pause;
            let write = is_written.then_some(millis);
            let (found, text) = match step {
                ReadMoment::Text(at) => (found(TEXTS[at]), Some(TEXTS[at])),
                // Only said of bytes that were judged.
                ReadMoment::Known if rig.state.last.is_some() && rig.state.pending.is_none() => (Found::Known, last),
                ReadMoment::Known | ReadMoment::Gone => (Found::Missing("gone".to_owned()), None),
                ReadMoment::Unstable => (Found::Unstable { names: Vec::new() }, None),
                ReadMoment::Failed => (Found::Failed("no".to_owned()), last),
            };
            if text != last || is_written {
                touched = millis;
            }
            last = text;
            let before = rig.current.clone();
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let seconds = |millis: u64| millis as f64 / 1000.0;
            let transition = rig.attempt(seconds(millis), found, write.map(seconds));
            if let Some(active) = &transition.serve {
                let text = text.expect("something was read");
                let read = read(text);
                prop_assert!(read.is_ok(), "{} serves", text);
                let digest = active.set.digest().to_string();
                prop_assert_eq!(read.unwrap().set.digest().to_string(), digest.clone());
                let is_new = before.as_ref().is_none_or(|before| before.set.digest() != active.set.digest());
                let expected = before.as_ref().map_or(0, |before| before.generation) + u64::from(is_new);
                prop_assert_eq!(active.generation, expected);
                // A recovery is audited as well, and changes nothing.
                let change = transition.change.filter(|change| change.accepted);
                prop_assert_eq!(change.is_some_and(|change| change.digest != change.previous_digest), is_new);
                if is_new {
                    let lost = before.as_ref().is_some_and(|before| {
                        before.set.audiences().iter().any(|old| {
                            let new = active.set.audiences().iter().find(|new| new.audience == old.audience);
                            new.is_none_or(|new| {
                                old.scopes_supported.iter().any(|scope| !new.scopes_supported.contains(scope))
                            })
                        })
                    });
                    prop_assert!(!lost || millis - touched >= 2000, "a removal after {} ms", millis - touched);
                    digests.push(digest);
                }
            }
            if let Some(shown) = rig.shown.last() {
                let generation = |active: &Option<Arc<Active>>| active.as_ref().map(|active| active.generation);
                prop_assert_eq!(generation(&shown.serving), generation(&rig.current));
            }
            prop_assert_eq!(rig.generation(), digests.len() as u64);
        }
    }
}
