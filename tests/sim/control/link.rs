//! The virtual network between two processes that hand over: what is said may be lost at any step, and then the
//! conversation is over for both, for each when it notices.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::sleep;

use crate::dice::Dice;

/// What is said, in this order; see `src/handover/wire.rs`. The sockets say nothing about the state.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Said {
    Pause,
    No,
    Paused,
    Serving,
    Done,
}

/// One end of a conversation. Dropping it breaks the conversation off.
pub struct End {
    says: Option<UnboundedSender<Said>>,
    hears: UnboundedReceiver<Said>,
    dice: Rc<RefCell<Dice>>,
    /// How often something is lost, in permille.
    lost: u64,
}

/// A conversation of two.
pub fn link(dice: &Rc<RefCell<Dice>>, lost: u64) -> (End, End) {
    let ((says_a, hears_b), (says_b, hears_a)) = (unbounded_channel(), unbounded_channel());
    let end = |says, hears| End { says: Some(says), hears, dice: dice.clone(), lost };
    (end(says_a, hears_a), end(says_b, hears_b))
}

impl End {
    /// Says something. Who says it does not know whether it arrives.
    pub async fn say(&mut self, said: Said) {
        let (lost, ms) = {
            let mut dice = self.dice.borrow_mut();
            (dice.permille(self.lost), *dice.pick(&[0, 0, 1, 10, 300]))
        };
        sleep(Duration::from_millis(ms)).await;
        if lost {
            self.says = None;
        }
        if let Some(says) = &self.says {
            let _nobody_hears = says.send(said);
        }
    }

    /// What the other one says; none when the conversation has broken off, which takes a while to notice.
    pub async fn hear(&mut self) -> Option<Said> {
        let said = self.hears.recv().await;
        if said.is_none() {
            self.says = None;
            let ms = *self.dice.borrow_mut().pick(&[0, 1, 50, 2_000, 20_000]);
            sleep(Duration::from_millis(ms)).await;
        }
        said
    }
}
