//! What clients asked for and were told, and what they saw.

use std::collections::BTreeMap;

use serde_json::Value;
use switchback::control::{Receipt, SubmitError};
use switchback::model::{Pin, PinTarget, ServiceState};
use switchback::store::StoreError;

use super::history::{Content, Fields, Operation, What};

/// A change that somebody asked for.
#[derive(Debug, Clone)]
pub struct Call {
    /// The reason of the change, which no other change has.
    pub reason: String,
    pub service: &'static str,
    /// What it sets, and to what.
    pub field: String,
    pub value: Option<String>,
    pub if_revision: Option<u64>,
    /// The process that was asked.
    pub process: usize,
    pub called: u64,
    /// The events that were there before have smaller numbers.
    pub next_event: u64,
    pub answered: u64,
    pub answer: Answer,
}

/// What became of a change, as its author was told.
#[derive(Debug, Clone)]
pub enum Answer {
    /// It is durable.
    Done(Box<Receipt>),
    /// It is in effect and will be durable.
    Unconfirmed,
    /// It did not happen and never will.
    Refused(String),
    /// Nobody said, or it may have happened in spite of an error.
    Unknown(#[expect(dead_code, reason = "for who reads the log")] String),
}

impl From<Result<Receipt, SubmitError>> for Answer {
    fn from(answer: Result<Receipt, SubmitError>) -> Self {
        match answer {
            Ok(receipt) if receipt.unconfirmed => Self::Unconfirmed,
            Ok(receipt) => Self::Done(Box::new(receipt)),
            Err(error @ (SubmitError::Closed | SubmitError::Store(_))) => match error {
                SubmitError::Store(StoreError::Conflict { .. }) => Self::Refused(error.to_string()),
                _ => Self::Unknown(error.to_string()),
            },
            Err(error) => Self::Refused(error.to_string()),
        }
    }
}

/// What a process that was alone showed of a service.
#[derive(Debug, Clone)]
pub struct Look {
    pub service: &'static str,
    pub at: u64,
    pub process: usize,
    pub revision: u64,
    pub fields: Fields,
}

/// Notes a look. Of many that see the same one after the other, the first and the last say everything.
pub fn add_look(looks: &mut Vec<Look>, look: Look) {
    let same = |before: &Look| before.process == look.process && before.revision == look.revision;
    let mut before = looks.iter().enumerate().rev().filter(|(_, before)| before.service == look.service);
    let last = before.next().filter(|(_, last)| same(last) && last.fields == look.fields);
    let but_one = before.next().filter(|(_, but_one)| same(but_one) && but_one.fields == look.fields);
    match last.zip(but_one).map(|((at, _), _)| at) {
        Some(at) => looks[at] = look,
        None => looks.push(look),
    }
}

/// What a service's document says.
pub fn fields(live: &ServiceState) -> Fields {
    let split = text(&serde_json::json!(live.weights_in_effect(&live.split)));
    let pins = live.pins.tenants.iter().map(|(tenant, pin)| pin_field(&PinTarget::Tenant(tenant.clone()), pin));
    let hold = live.hold.iter().map(|hold| ("hold".to_owned(), hold.reason.clone()));
    [("split".to_owned(), split)].into_iter().chain(pins).chain(hold).collect::<BTreeMap<_, _>>()
}

pub fn pin_field(target: &PinTarget, pin: &Pin) -> (String, String) {
    (format!("pin of {target}"), format!("{pin:?}"))
}

/// Weights as text that can be compared, whatever order they stand in.
pub fn text(weights: &Value) -> String {
    let shares = weights.as_object().into_iter().flatten();
    shares.map(|(version, share)| format!("{version}={share} ")).collect()
}

/// The history of one service, for the search. Whoever was not told what became of a change finds out from the events of
/// the store, and so does this: `happened` is the revision of a change by its reason. A change that an event tells of
/// happened at some time after it was called; one that no event tells of did not happen, and if it did after all, some read
/// or the answer to some later change does not fit.
pub fn operations(
    service: &str,
    calls: &[Call],
    looks: &[Look],
    happened: impl Fn(&str) -> Option<u64>,
) -> Vec<Operation> {
    let of_service = calls.iter().filter(|call| call.service == service);
    let writes = of_service.filter_map(|call| call.operation(happened(&call.reason)));
    let reads = looks.iter().filter(|look| look.service == service).map(|look| Operation {
        name: format!("a look at process {}", look.process),
        called: look.at,
        answered: Some(look.at),
        what: What::Read { revision: look.revision, fields: look.fields.clone() },
    });
    writes.chain(reads).collect()
}

impl Call {
    /// The change as the search sees it; none if it did not happen.
    fn operation(&self, happened: Option<u64>) -> Option<Operation> {
        let (answered, revision, before) = match &self.answer {
            Answer::Refused(_) => return None,
            Answer::Unconfirmed | Answer::Unknown(_) => (None, happened?, None),
            Answer::Done(receipt) => {
                let of_split = self.field == "split";
                let before = of_split.then(|| text(&receipt.before["weights"]));
                (Some(self.answered), receipt.document_revision, before)
            }
        };
        let what = What::Write {
            field: self.field.clone(),
            value: self.value.clone(),
            before,
            if_revision: self.if_revision,
            revision: Some(revision),
        };
        Some(Operation { name: self.reason.clone(), called: self.called, answered, what })
    }
}

/// A service that just began.
pub fn begin(revision: u64, live: &ServiceState) -> Content {
    Content { revision, exact: true, fields: fields(live) }
}
