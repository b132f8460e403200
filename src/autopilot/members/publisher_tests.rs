//! Only what changed goes out, what hurts first, and everything again to those who know nothing.

use super::*;
use crate::model::{ServiceName, TenantName};

fn whose(n: u64) -> Whose {
    (ServiceName::new("shop").unwrap(), TenantName::new(&format!("t{n}")).ok())
}

/// The names of the notes that are due.
fn due(publisher: &mut Publisher, now_ms: u64, members: usize) -> Option<Vec<String>> {
    let (notes, pages) = publisher.due(now_ms, members, &Readings::default(), &|at| at)?;
    let (answer, written) = oneshot::channel();
    publisher.sent(pages, written);
    answer.send(Ok(1)).unwrap();
    publisher.settle(now_ms);
    Some(notes.into_iter().map(|note| note.name + if note.body.is_none() { " gone" } else { "" }).collect())
}

#[test]
fn a_second_passes_between_pages_unless_a_canary_fails() {
    let mut publisher = Publisher::default();
    (0..200).for_each(|n| publisher.touch(n, || whose(n), false));
    let all: Vec<_> = (0..4).map(|page| format!("counts/{page:03}")).collect();
    assert_eq!(due(&mut publisher, 1_000, 3), Some(all));
    publisher.touch(70, || unreachable!("it has a place"), false);
    assert_eq!(due(&mut publisher, 1_900, 3), None);
    assert_eq!(due(&mut publisher, 2_000, 3), Some(vec!["counts/001".to_owned()]));
    publisher.touch(199, || unreachable!("it has a place"), true);
    assert_eq!(due(&mut publisher, 2_200, 3), None);
    assert_eq!(due(&mut publisher, 2_250, 3), Some(vec!["counts/003".to_owned()]));
    publisher.retain(|scope| scope < 64);
    // The one that has waited longest goes first.
    let gone: Vec<_> = [2, 1, 3].map(|page| format!("counts/{page:03} gone")).into();
    assert_eq!(due(&mut publisher, 4_000, 3), Some(gone));
    assert_eq!(due(&mut publisher, 5_000, 3), Some(vec![]), "other notes may go now");
    publisher.touch(500, || whose(500), false);
    assert_eq!(due(&mut publisher, 6_000, 3), Some(vec!["counts/001".to_owned()]), "places are used again");
}

#[test]
fn in_a_large_fleet_pages_take_turns_and_failing_ones_do_not_wait() {
    let mut publisher = Publisher::default();
    let pages = 40;
    (0..pages * SCOPES as u64).for_each(|n| publisher.touch(n, || whose(n), false));
    let mut seen = Vec::new();
    let mut at = 1_000;
    while seen.len() < pages as usize {
        // So many members that each has the least share.
        let now = due(&mut publisher, at, 1_000).unwrap();
        assert!(!now.is_empty() && now.len() < 40, "{now:?}");
        seen.extend(now);
        at += 1_000;
        (0..pages * SCOPES as u64).for_each(|n| publisher.touch(n, || unreachable!(), false));
    }
    let mut distinct = seen.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), pages as usize, "each had its turn");
    publisher.touch(30 * SCOPES as u64, || unreachable!(), true);
    assert_eq!(due(&mut publisher, at, 1_000).unwrap()[0], "counts/030");
}

#[test]
fn what_was_not_written_is_told_again_and_another_member_tells_everything() {
    let mut publisher = Publisher::default();
    (0..130).for_each(|n| publisher.touch(n, || whose(n), false));
    let answer_with = |publisher: &mut Publisher, at, answer: Result<u64, StoreError>| {
        let (notes, pages) = publisher.due(at, 3, &Readings::default(), &|at| at).unwrap();
        let (sender, written) = oneshot::channel();
        publisher.sent(pages, written);
        assert!(publisher.due(at + 5_000, 3, &Readings::default(), &|at| at).is_none(), "one at a time");
        sender.send(answer).unwrap();
        (notes.len(), publisher.settle(at))
    };
    assert_eq!(answer_with(&mut publisher, 1_000, Ok(5)), (3, false));
    publisher.touch(0, || unreachable!(), false);
    let away = || Err(StoreError::Away { detail: "gone".to_owned() });
    assert_eq!(answer_with(&mut publisher, 2_000, away()), (1, true));
    assert!(!publisher.is_unheard(4_900) && publisher.is_unheard(5_000), "nobody can judge for it");
    assert_eq!(answer_with(&mut publisher, 3_000, Ok(5)), (1, false));
    assert!(!publisher.is_unheard(5_000));
    publisher.touch(129, || unreachable!(), false);
    assert_eq!(answer_with(&mut publisher, 4_000, Ok(9)), (1, true), "its lease was lost meanwhile");
    assert_eq!(answer_with(&mut publisher, 5_000, Ok(9)), (3, false));
}
