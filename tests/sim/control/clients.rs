//! Those who look and change things, many at a time, and patient for different lengths of time.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use switchback::control::{Control, View};
use switchback::model::{
    Author, BasisPoints, Change, ChangeRequest, GlobalChange, GlobalRequest, Pin, PinTarget, Scope, Weights,
};
use tokio::time::{sleep, timeout};

use super::calls::{self, Answer, Call, Look, fields, pin_field, text};
use super::world::{Process, SERVICES, World};
use crate::dice::Dice;

/// One client.
struct Client {
    world: Rc<World>,
    dice: Dice,
    name: String,
    asked: u64,
    /// The revisions of services that it saw last.
    seen: HashMap<&'static str, u64>,
}

/// Goes about its business until the story is over.
pub async fn live(world: Rc<World>, number: u64, seed: u64) {
    let dice = Dice::new(seed.wrapping_mul(31).wrapping_add(number + 1));
    let mut client = Client { world, dice, name: format!("c{number}"), asked: 0, seen: HashMap::new() };
    loop {
        let ms = *client.dice.pick(&[0, 5, 20, 100, 300, 900]);
        sleep(Duration::from_millis(ms)).await;
        if client.world.over.get() {
            return;
        }
        if let Some((process, control)) = client.door() {
            client.act(&process, &control).await;
        }
    }
}

/// A change of a person's.
pub fn plain(reason: &str, change: Change, service: &str) -> ChangeRequest {
    ChangeRequest {
        service: service.parse().expect("a service's name"),
        change,
        author: Author::Person { name: "sim".to_owned() },
        reason: reason.to_owned(),
        if_revision: None,
        if_attempt: None,
        evidence: Value::Null,
    }
}

/// A change that nothing stands in the way of any more.
pub async fn last_word(world: &Rc<World>, process: &Process, control: &Control) -> Answer {
    let (reason, service) = (format!("the last word of {}", process.id), SERVICES[0]);
    let called = world.turn();
    let answer = Answer::from(control.submit(plain(&reason, Change::SetHold, service), false).await);
    let (field, value, answered) = ("hold".to_owned(), Some(reason.clone()), world.turn());
    let (process, if_revision, next_event, said) = (process.id, None, 0, answer.clone());
    let call = Call { reason, service, field, value, if_revision, process, called, next_event, answered, answer };
    world.calls.borrow_mut().push(call);
    said
}

impl Client {
    /// Whom it reaches: those who are open, and now and then one that it is still connected with.
    fn door(&mut self) -> Option<(Rc<Process>, Control)> {
        let any = self.dice.permille(150);
        let doors: Vec<_> = self.world.living().into_iter().filter(|p| any || p.open.get()).collect();
        let reached: Vec<_> = doors.into_iter().filter_map(|p| p.control().map(|control| (p, control))).collect();
        if reached.is_empty() { None } else { Some(self.dice.pick(&reached).clone()) }
    }

    async fn act(&mut self, process: &Rc<Process>, control: &Control) {
        let view = control.view();
        self.look(process, &view);
        let what = if self.world.calm.get() { self.dice.below(5) } else { self.dice.below(20) };
        match what {
            0..=3 => {}
            4 => {
                let request = plain("a dry run", Change::SetHold, SERVICES[0]);
                let _whatever = control.submit(request, true).await;
            }
            5 => self.freeze(process, control).await,
            6..=8 => self.change(process, control, &view, true).await,
            _ => self.change(process, control, &view, false).await,
        }
    }

    /// What a process shows that nobody else can have overtaken is the newest.
    fn look(&mut self, process: &Process, view: &View) {
        let writers = self.world.living().iter().filter(|p| p.is_writer()).count();
        let alone = process.is_writer() && writers == 1 && !process.disturbed.get() && view.confirmed;
        for service in SERVICES {
            let Some(live) = view.state.service(service) else { continue };
            self.seen.insert(service, live.revision);
            if alone {
                let (at, process, revision) = (self.world.turn(), process.id, live.revision);
                let look = Look { service, at, process, revision, fields: fields(live) };
                calls::add_look(&mut self.world.looks.borrow_mut(), look);
            }
        }
    }

    fn reason(&mut self) -> String {
        self.asked += 1;
        format!("{}-{}", self.name, self.asked)
    }

    async fn freeze(&mut self, process: &Process, control: &Control) {
        let change = match self.dice.permille(600) {
            true => GlobalChange::SetFreeze { until_ms: None },
            false => GlobalChange::ClearFreeze,
        };
        let (author, reason) = (Author::Person { name: self.name.clone() }, self.reason());
        let request = GlobalRequest { change, author, reason: reason.clone(), if_revision: None };
        let called = self.world.turn();
        let answer = control.submit_global(request, false).await;
        // The freeze is a document of its own that the search does not follow; that it is durable is checked all the same.
        let (service, field, value) = ("", "freeze".to_owned(), None);
        let (process, if_revision, answer) = (process.id, None, Answer::from(answer));
        self.note(Call {
            reason,
            service,
            field,
            value,
            if_revision,
            process,
            called,
            next_event: 0,
            answered: 0,
            answer,
        });
    }

    async fn change(&mut self, process: &Process, control: &Control, view: &View, guard: bool) {
        let service = *self.dice.pick(&SERVICES);
        let Some(live) = view.state.service(service) else { return };
        let reason = self.reason();
        let (change, field, value) = if guard { self.rollback("errors") } else { self.draw(&reason) };
        let mut request = plain(&reason, change, service);
        if guard {
            request.author = Author::Autopilot;
            request.if_attempt = Some(live.split.attempt);
        } else if self.dice.permille(500) {
            request.if_revision = self.seen.get(service).copied();
        }
        let (if_revision, called) = (request.if_revision, self.world.turn());
        let next_event = self.world.disk.truth(|truth| truth.next_event);
        let patience = Duration::from_millis(*self.dice.pick(&[10, 2_000, 30_000, 30_000]));
        let answer = timeout(patience, control.submit(request, false)).await;
        let answer = answer.map_or_else(|_| Answer::Unknown("it lost its patience".to_owned()), Answer::from);
        let process = process.id;
        self.note(Call {
            reason,
            service,
            field,
            value,
            if_revision,
            process,
            called,
            next_event,
            answered: 0,
            answer,
        });
    }

    fn note(&self, mut call: Call) {
        let answer = match &call.answer {
            Answer::Done(receipt) => format!("done at {}", receipt.revision),
            other => format!("{other:?}"),
        };
        let against = call.if_revision.map_or_else(String::new, |revision| format!(" if at {revision}"));
        let (reason, service, field, value) = (&call.reason, call.service, &call.field, &call.value);
        self.world
            .tell(format!("{reason} of process {}: {service} {field}={value:?}{against}: {answer}", call.process));
        call.answered = self.world.turn();
        self.world.calls.borrow_mut().push(call);
    }

    /// A person's change. Each split is one of its own kind, so that a read tells whose it saw.
    fn draw(&mut self, reason: &str) -> (Change, String, Option<String>) {
        let target = PinTarget::Tenant(format!("t{}", self.dice.below(3)).parse().expect("a tenant's name"));
        match self.dice.below(10) {
            0..=4 => {
                let points = BasisPoints::new(1 + self.dice.below(9_999) as u16).expect("below all");
                let rest = BasisPoints::new(10_000 - points.points()).expect("below all");
                let version = |text: &str| text.parse().expect("a version's name");
                let weights = Weights::new([(version("1"), rest), (version("2"), points)]).expect("all of it");
                let value = text(&json!(weights));
                (Change::SetSplit { scope: Scope::Service, weights }, "split".to_owned(), Some(value))
            }
            5 => self.rollback("person"),
            6..=7 => {
                let version = self.dice.pick(&["1", "2"]).parse().expect("a version's name");
                let pin = match self.dice.permille(700) {
                    true => Pin::Version(version),
                    false => Pin::Exclude("2".parse().expect("a version's name")),
                };
                let (field, value) = pin_field(&target, &pin);
                (Change::SetPin(target, pin), field, Some(value))
            }
            8 => (Change::ClearPin(target.clone()), format!("pin of {target}"), None),
            _ if self.dice.permille(500) => (Change::SetHold, "hold".to_owned(), Some(reason.to_owned())),
            _ => (Change::ClearHold, "hold".to_owned(), None),
        }
    }

    fn rollback(&mut self, cause: &str) -> (Change, String, Option<String>) {
        let canary = Some("2".parse().expect("a version's name"));
        let change = Change::Rollback { scope: Scope::Service, canary, cause: cause.to_owned(), first_bad_ms: None };
        let all = Weights::all_on("1".parse().expect("a version's name"));
        (change, "split".to_owned(), Some(text(&json!(all))))
    }
}
