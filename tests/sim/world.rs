//! One run: a state, its store, a process that may die at any moment, and messages on their way, all in virtual time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::rc::Rc;

use switchback::config;
use switchback::model::{
    Author, Change, ChangeError, ChangeRequest, GlobalRequest, LiveRollout, Schedule, Scope, ServiceName, State,
    Structure, TenantName, VersionName,
};
use switchback::planning::Waiting;

use crate::dice::Dice;
use crate::guard::Guard;
use crate::invariants;
use crate::ledger::{Ledger, Turn};
use crate::plans::{TENANTS, closed_at, tenant};
use crate::post::Message;
use crate::shell::{Look, Shell};
use crate::store::Store;
use crate::view::View;

const FILE: &str = r#"
[proxy]
listen = ["127.0.0.1:0"]
[tenants]
identify = [{ header = "x-tenant-id" }]
groups = { beta = ["t0", "t1", "t2"], gold = ["t3", "t4"], rest = ["t5", "t6", "t7", "t8"] }
[services.api]
match = [{ path = "/" }]
baseline = "1"
[services.api.versions."1"]
endpoints = ["127.0.0.1:7001"]
[services.api.versions."2"]
endpoints = ["127.0.0.1:7002"]
[services.api.versions."3"]
endpoints = ["127.0.0.1:7003"]
"#;

/// A Monday at noon, UTC.
const BEGIN_MS: u64 = 1_795_435_200_000;

/// How the world is disposed.
#[derive(Clone, Copy, PartialEq)]
pub enum Mood {
    /// Gates and faults by chance.
    Wild,
    /// Gates are open at once, nothing fails.
    Calm,
}

pub struct World {
    pub dice: Dice,
    pub mood: Mood,
    pub structure: Structure,
    pub service: ServiceName,
    pub scopes: Vec<Scope>,
    pub state: State,
    /// What the scopes have in this state.
    view: Rc<View>,
    pub process_ms: u64,
    /// How far the wall clock is ahead of the process's, jumps included.
    pub wall_offset_ms: u64,
    pub guard: Guard,
    pub shell: Shell,
    pub events: u64,
    /// Chance of a tenant to be outside its windows, in permille of the minutes.
    pub shut_permille: u64,
    /// The tenants that are outside their windows, and the minute and chance for which they were drawn.
    shut: ((u64, u64), BTreeMap<TenantName, Schedule>),
    pub store: Store,
    pub ledger: Ledger,
    pub queue: BTreeMap<(u64, u64), Message>,
    pub sent: u64,
    log: VecDeque<String>,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let structure = config::parse(FILE, Path::new("/etc/sim.toml"), &|_| None).expect("a good file").structure;
        let groups = structure.tenants.groups.keys().cloned().map(Scope::Group);
        let scopes = (0..TENANTS).map(|n| Scope::Tenant(tenant(n))).chain(groups).chain([Scope::Service]).collect();
        let mut world = Self {
            dice: Dice::new(seed),
            mood: Mood::Wild,
            structure,
            service: ServiceName::new("api").expect("a service's name"),
            scopes,
            state: State::default(),
            view: Rc::default(),
            process_ms: 0,
            wall_offset_ms: BEGIN_MS,
            guard: Guard::default(),
            shell: Shell::default(),
            events: 0,
            shut_permille: 0,
            shut: Default::default(),
            store: Store::default(),
            ledger: Ledger::default(),
            queue: BTreeMap::new(),
            sent: 0,
            log: VecDeque::new(),
        };
        let begin = world.request(Change::AddService, Author::File);
        let added = world.state.apply(&world.structure, &begin, 1, BEGIN_MS).expect("it begins");
        world.store.commit(&added.commit);
        world.state = added.state;
        world.look_over();
        world
    }

    pub fn wall_ms(&self) -> u64 {
        self.process_ms + self.wall_offset_ms
    }

    pub fn request(&self, change: Change, author: Author) -> ChangeRequest {
        ChangeRequest {
            service: self.service.clone(),
            change,
            author,
            reason: "the simulation".to_owned(),
            if_revision: None,
            if_attempt: None,
            evidence: serde_json::Value::Null,
        }
    }

    /// The rollout that was begun last.
    pub fn last_rollout(&self) -> Option<&LiveRollout> {
        self.state.rollouts.values().max_by_key(|live| live.rollout.first_event).map(|live| &**live)
    }

    pub fn waiting(&self) -> Option<&Waiting> {
        self.shell.waiting.get(&self.last_rollout()?.rollout.id)
    }

    /// The version that moves or moved last.
    pub fn canary(&self) -> Option<VersionName> {
        self.last_rollout().map(|live| live.rollout.spec.to.clone())
    }

    /// Time goes on, and what is due arrives.
    pub fn pass_time(&mut self, ms: u64) {
        let until = self.process_ms + ms;
        self.guard.count(&self.state, &self.view, &self.service, &mut self.shell.failed, ms);
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= until) {
            let ((at_ms, _), message) = entry.remove_entry();
            self.process_ms = self.process_ms.max(at_ms);
            self.receive(message);
        }
        self.process_ms = until;
    }

    /// The one writer.
    pub fn decide(&mut self, request: &ChangeRequest, planned: u64) -> bool {
        let wall_ms = self.wall_ms();
        match self.state.apply(&self.structure, request, self.store.events + 1, wall_ms) {
            Ok(applied) => {
                self.tell(format!("{} {:?}", request.author, brief(&request.change)));
                self.commit(Some(request), applied);
                true
            }
            Err(error) => {
                // What planning asks for is possible, unless something else happened in between.
                let fresh = planned == self.state.revision && matches!(request.change, Change::Rollout(..));
                let by_machine = request.author == Author::Autopilot && self.state.freeze_at(wall_ms).is_none();
                if fresh && by_machine && !matches!(error, ChangeError::StaleRevision { .. }) {
                    self.fail(&format!("planning asks for what is refused: {:?}: {error}", request.change));
                }
                false
            }
        }
    }

    pub fn decide_global(&mut self, request: &GlobalRequest) {
        let wall_ms = self.wall_ms();
        if let Ok(applied) = self.state.apply_global(&self.structure, request, self.store.events + 1, wall_ms) {
            self.tell(format!("{} {:?}", request.author, request.change));
            self.commit(None, applied);
        }
    }

    fn commit(&mut self, request: Option<&ChangeRequest>, applied: switchback::model::Applied) {
        self.store.commit(&applied.commit);
        let before = std::mem::replace(&mut self.state, applied.state);
        let was = self.look_over();
        let turn = Turn {
            service: &self.service,
            scopes: &self.scopes,
            before: &before,
            after: &self.state,
            was: &was,
            is: &self.view,
            request,
            commit: &applied.commit,
            wall_ms: self.process_ms + self.wall_offset_ms,
            process_ms: self.process_ms,
        };
        let found = invariants::of_the_turn(&turn, &self.ledger).and_then(|()| {
            self.ledger.note(&turn);
            invariants::of_the_state(&turn, &self.ledger)
        });
        if let Err(why) = found {
            self.fail(&why);
        }
    }

    /// The view is that of the state again; gives back what it was.
    fn look_over(&mut self) -> Rc<View> {
        let view = View::new(&self.state, &self.structure, &self.service, &self.scopes);
        std::mem::replace(&mut self.view, Rc::new(view))
    }

    /// The shell and the guard look.
    pub fn look(&mut self) {
        self.look_at_rollouts();
        let requests = self.guard.look(&self.state, &self.view, &self.service, &mut self.dice, self.process_ms);
        for request in requests {
            self.send(request);
        }
    }

    pub fn look_at_rollouts(&mut self) {
        self.shut_tenants();
        let (guard, process_ms) = (&self.guard, self.process_ms);
        let (state, view) = (&self.state, &self.view);
        let wishes = self.shell.look(&Look {
            state,
            process_ms,
            wall_ms: process_ms + self.wall_offset_ms,
            tenant_windows: &self.shut.1,
            evidence: &|live| guard.seen(view, live, process_ms),
        });
        for (id, wish) in wishes {
            self.grant(id, wish);
        }
    }

    /// Draws the tenants that are outside their windows, each minute anew.
    fn shut_tenants(&mut self) {
        let now = (self.wall_ms() / 60_000, self.shut_permille);
        if self.shut.0 == now {
            return;
        }
        let is_shut = |tenant: &TenantName| {
            let text = format!("{tenant}{}", now.0);
            text.bytes().fold(7_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into())) % 1_000 < now.1
        };
        let schedule = closed_at(now.0);
        let shut = (0..TENANTS).map(tenant).filter(is_shut).map(|tenant| (tenant, schedule.clone()));
        self.shut = (now, shut.collect());
    }

    /// The process dies: what it knew is gone, what was on its way to the store arrived there or did not.
    pub fn crash(&mut self) {
        self.tell("crash".to_owned());
        let queue = std::mem::take(&mut self.queue);
        for message in queue.into_values() {
            match message {
                Message::Change { request, planned, .. } if self.dice.permille(300) => {
                    let _made_or_refused = self.decide(&request, planned);
                }
                Message::Global(request) if self.dice.permille(300) => self.decide_global(&request),
                _ => {}
            }
        }
        let found = self.store.load();
        let same = found.rollouts == self.state.rollouts
            && found.services == self.state.services
            && found.freeze == self.state.freeze
            && found.to_documents().eq(self.state.to_documents())
            && found.revision == self.state.revision;
        if !same {
            self.fail("after a crash the state is not where it was");
        }
        self.state = found;
        self.shell = Shell::default();
        self.guard.forget();
        self.ledger.restart_ms = self.process_ms;
    }

    pub fn tell(&mut self, what: String) {
        if self.log.len() >= 2_000 {
            self.log.pop_front();
        }
        let rollout = self.last_rollout().map(|live| {
            let r = &live.rollout;
            format!("{} {:?} {} in_effect={} paused={}", r.id, r.phase, r.stage, r.in_effect, r.paused.is_some())
        });
        let line = format!(
            "{:>9} ms, revision {}: [{}] {what}",
            self.process_ms,
            self.state.revision,
            rollout.unwrap_or_default()
        );
        self.log.push_back(line);
    }

    /// Ends the run with the story that led here.
    pub fn fail(&self, why: &str) -> ! {
        // Whoever asks for one story wants all of it.
        let lines = if std::env::var_os("SIM_SEED").is_some() { self.log.len() } else { 40 };
        let story: Vec<_> = self.log.iter().skip(self.log.len().saturating_sub(lines)).map(String::as_str).collect();
        let last = self.last_rollout();
        panic!(
            "{why}\nlast things that happened:\n{}\n{:?}",
            story.join("\n"),
            last.map(|l| (&l.rollout, waiting(self)))
        )
    }

    /// Tenants whose split a person set.
    pub fn wished(&self) -> BTreeSet<TenantName> {
        let Some(own) = self.state.tenants.get(&self.service) else { return BTreeSet::new() };
        let wish = |own: &switchback::model::TenantState| {
            own.by.is_none() && own.split.rolled_back.is_none() && own.split.brake.is_none()
        };
        own.iter().filter(|(_, own)| wish(own)).map(|(name, _)| name.clone()).collect()
    }
}

fn waiting(world: &World) -> Option<&Waiting> {
    world.waiting()
}

/// A change without the parts that are too long to read.
fn brief(change: &Change) -> String {
    match change {
        Change::StartRollout(new) => format!(
            "start of {} to {} {:?} in batches {:?} with {:?}",
            new.spec.from, new.spec.to, new.spec.target, new.batches, new.spec.steps
        ),
        change => format!("{change:?}"),
    }
}
