//! Questions to gates: a signed POST that says what is about to happen. 2xx opens, anything else holds.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};

use super::{Report, Rollouts};
use crate::model::{Gate, GateAt, LiveRollout, Phase, Scope, UnitStatus};
use crate::planning::Question;
use crate::webhook::{Answer, CallError, ID, Target};

/// Tenants that a question names.
const MAX_TENANTS: usize = 1_000;
/// Characters of an answer that are kept.
const MAX_SAID: usize = 200;

impl Rollouts {
    /// Asks a gate; the answer comes as a report.
    pub(super) fn ask(&mut self, live: &Arc<LiveRollout>, question: &Question) {
        let id = live.rollout.id.clone();
        let Some(watched) = self.watched.get_mut(&id) else { return };
        watched.asked.insert(question.key.clone());
        let (caller, report, key) = (self.caller.clone(), self.report.clone(), question.key.clone());
        let (target, body, headers) = call(live, &question.gate, &key);
        tokio::spawn(async move {
            let answer = caller.post(&target, body, headers).await;
            let (open, said) = read(answer);
            let _task_ended = report.send(Report::Gate { id, key, open, said });
        });
    }

    /// Asks the gates that may hold at any time, every now and then while the rollout is on its way.
    pub(super) fn poll_holds(&mut self, live: &Arc<LiveRollout>, now_ms: u64) {
        let rollout = &live.rollout;
        if !matches!(rollout.phase, Phase::Pending | Phase::Progressing | Phase::Finishing) {
            return;
        }
        let Some(watched) = self.watched.get_mut(&rollout.id) else { return };
        let due = watched.due_holds(rollout, now_ms);
        for gate in rollout.spec.gates.iter().filter(|g| g.at == GateAt::Hold && due.contains(&g.name)) {
            let (caller, report) = (self.caller.clone(), self.report.clone());
            let (id, name) = (rollout.id.clone(), gate.name.clone());
            let (target, body, headers) = call(live, gate, &gate.name);
            tokio::spawn(async move {
                let (open, said) = read(caller.post(&target, body, headers).await);
                let closed = (!open).then(|| format!("gate {name} holds: {said}"));
                let _task_ended = report.send(Report::Hold { id, gate: name, closed });
            });
        }
    }
}

fn call(live: &LiveRollout, gate: &Gate, key: &str) -> (Target, Bytes, HeaderMap) {
    let target = Target {
        url: gate.url.clone(),
        // Checked when the rollout was started.
        secret: gate.secret.as_deref().and_then(|secret| secret.parse().ok()),
        timeout: Duration::from_millis(gate.timeout_ms),
    };
    let mut headers = HeaderMap::new();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // The same question has the same id however often it is asked, so that a receiver need not do its work twice.
    let id = format!("{}-{}-{key}", live.rollout.id, live.rollout.retries);
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(ID, id);
    }
    (target, body(live, gate).to_string().into(), headers)
}

/// What a gate is told.
fn body(live: &LiveRollout, gate: &Gate) -> Value {
    let rollout = &live.rollout;
    let stage = rollout.stage;
    let moves = |status| matches!(status, UnitStatus::Pending | UnitStatus::InProgress);
    let batch = live.units.range(rollout.batch_range(stage.batch)).filter(|(_, u)| moves(u.status));
    let tenants = batch.filter_map(|(_, unit)| match &unit.scope {
        Scope::Tenant(tenant) => Some(tenant),
        Scope::Service | Scope::Group(_) => None,
    });
    json!({
        "rollout": rollout.id,
        "service": rollout.service,
        "from": rollout.spec.from,
        "to": rollout.spec.to,
        "gate": gate.name,
        "at": gate.at,
        "phase": rollout.phase,
        "step": stage.to_string(),
        "share": rollout.spec.steps.get(stage.step as usize).map(|step| step.share),
        "tenants": tenants.take(MAX_TENANTS).collect::<Vec<_>>(),
        "counts": rollout.counts,
        "cause": rollout.going_back.as_ref().map(|back| &back.cause),
        "reason": rollout.going_back.as_ref().map(|back| &back.reason),
    })
}

/// Whether the gate is open, and what it said.
fn read(answer: Result<Answer, CallError>) -> (bool, String) {
    match answer {
        Ok(answer) => {
            let text = String::from_utf8_lossy(&answer.body);
            let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_SAID).collect();
            let said = format!("status {} {}", answer.status, line.trim());
            (answer.is_success(), said.trim_end().to_owned())
        }
        Err(error) => (false, error.chain()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_hundreds_open_and_nothing_else_does() {
        let answer = |status, body: &'static str| Ok(Answer { status, retry_after: None, body: body.into() });
        assert_eq!(read(answer(204, "")), (true, "status 204".to_owned()));
        assert_eq!(read(answer(503, "not\nyet")), (false, "status 503 not yet".to_owned()));
        assert!(!read(answer(302, "")).0);
        assert!(!read(Err(CallError::Timeout(Duration::from_secs(1)))).0);
    }
}
