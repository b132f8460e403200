//! Messages on their way: late, twice, or lost with the process that waited for them.

use switchback::model::{ChangeRequest, GlobalRequest, RolloutCommand, RolloutId};

use crate::shell::Wish;
use crate::world::{Mood, World};

/// What is on its way.
pub enum Message {
    /// To the one writer. From the shell with the rollout that it is about and the revision it was planned against.
    Change {
        request: Box<ChangeRequest>,
        from: Option<RolloutId>,
        planned: u64,
    },
    Global(Box<GlobalRequest>),
    /// To the shell.
    Changed {
        id: RolloutId,
        made: bool,
    },
    Gate {
        id: RolloutId,
        retries: u32,
        key: String,
        open: bool,
    },
    Hold {
        id: RolloutId,
        gate: String,
        closed: Option<String>,
    },
}

impl World {
    /// Sends a change on its way, twice now and then.
    pub fn send(&mut self, request: ChangeRequest) {
        self.send_change(Box::new(request), None);
    }

    pub fn send_global(&mut self, request: GlobalRequest) {
        let late = self.latency();
        self.put(late, Message::Global(Box::new(request)));
    }

    fn send_change(&mut self, request: Box<ChangeRequest>, from: Option<RolloutId>) {
        let planned = self.state.revision;
        let late = self.latency();
        if self.mood == Mood::Wild && self.dice.permille(30) {
            let again = late + self.dice.below(20_000);
            self.put(again, Message::Change { request: request.clone(), from: None, planned: 0 });
        }
        self.put(late, Message::Change { request, from, planned });
    }

    fn latency(&mut self) -> u64 {
        match (self.mood, self.dice.below(20)) {
            (Mood::Calm, _) | (_, 0..=13) => 0,
            (_, 14..=18) => self.dice.below(2_000),
            _ => self.dice.below(20_000),
        }
    }

    fn put(&mut self, after_ms: u64, message: Message) {
        self.sent += 1;
        self.queue.insert((self.process_ms + after_ms, self.sent), message);
    }

    /// Something arrives.
    pub fn receive(&mut self, message: Message) {
        self.events += 1;
        match message {
            Message::Change { request, from, planned } => {
                let made = self.decide(&request, planned);
                if let Some(id) = from {
                    let late = self.latency();
                    self.put(late, Message::Changed { id, made });
                }
            }
            Message::Global(request) => self.decide_global(&request),
            Message::Changed { id, made } => {
                if let Some(watched) = self.shell.watched.get_mut(&id) {
                    watched.pending = false;
                }
                if made {
                    self.look_at_rollouts();
                }
            }
            Message::Gate { id, retries, key, open } => self.hear_gate(&id, retries, key, open),
            Message::Hold { id, gate, closed } => {
                if let Some(watched) = self.shell.watched.get_mut(&id) {
                    watched.hold_answered(&gate, closed);
                }
            }
        }
    }

    fn hear_gate(&mut self, id: &RolloutId, retries: u32, key: String, open: bool) {
        let Some(live) = self.state.rollouts.get(id).cloned() else { return };
        if let Some(watched) = self.shell.watched.get_mut(id) {
            watched.asked.remove(&key);
        }
        if open {
            self.ledger.opened.insert((id.clone(), retries, key.clone()));
        }
        let command = RolloutCommand::Gate { key, open, said: "said".to_owned() };
        let wish = self.shell.submit(&live, command, "a gate answered".to_owned(), serde_json::Value::Null, None);
        self.grant(id.clone(), wish);
    }

    /// What the shell wishes is sent on its way.
    pub fn grant(&mut self, id: RolloutId, wish: Wish) {
        match wish {
            Wish::Submit(request) => self.send_change(request, Some(id)),
            Wish::Ask(question) => {
                let retries = self.state.rollouts[&id].rollout.retries;
                let (open, late) = self.answer(question.gate.timeout_ms);
                self.put(late, Message::Gate { id, retries, key: question.key, open });
            }
            Wish::Poll(names) => {
                for gate in names {
                    let (open, late) = self.answer(5_000);
                    let closed = (!open).then(|| format!("gate {gate} holds"));
                    self.put(late, Message::Hold { id: id.clone(), gate, closed });
                }
            }
        }
    }

    /// Whether a gate opens, and when it says so. One that never answers is closed by its timeout.
    fn answer(&mut self, timeout_ms: u64) -> (bool, u64) {
        match (self.mood, self.dice.below(10)) {
            (Mood::Calm, _) => (true, 0),
            (_, 0..=5) => (true, self.dice.below(300)),
            (_, 6) => (true, self.dice.below(timeout_ms)),
            (_, 7..=8) => (false, self.dice.below(timeout_ms)),
            _ => (false, timeout_ms),
        }
    }
}
