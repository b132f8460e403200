//! Boundaries are found wherever the bytes are cut.

use proptest::prelude::*;

use super::*;

fn frames() -> Follow {
    Follow::Frames(Frames::default())
}

fn events() -> Follow {
    Follow::Events(Events::default())
}

fn messages() -> Follow {
    Follow::Messages(Messages::default())
}

/// A frame as RFC 6455 writes it.
fn frame(opcode: u8, masked: bool, payload: &[u8]) -> Vec<u8> {
    let mask_bit = if masked { 0x80 } else { 0 };
    let mut bytes = vec![0x80 | opcode];
    match payload.len() {
        n @ 0..126 => bytes.push(mask_bit | n as u8),
        n @ 126..65_536 => {
            bytes.push(mask_bit | 126);
            bytes.extend((n as u16).to_be_bytes());
        }
        n => {
            bytes.push(mask_bit | 127);
            bytes.extend((n as u64).to_be_bytes());
        }
    }
    if masked {
        bytes.extend([1, 2, 3, 4]);
    }
    bytes.extend(payload);
    bytes
}

fn message(payload: &[u8]) -> Vec<u8> {
    [&[0][..], &(payload.len() as u32).to_be_bytes(), payload].concat()
}

/// The places after which the stream may end, found byte by byte.
fn boundaries(mut follow: Follow, bytes: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    for (i, byte) in bytes.iter().enumerate() {
        follow.pass(&[*byte]);
        if follow.at_boundary() {
            found.push(i + 1);
        }
    }
    found
}

fn ends(parts: &[Vec<u8>]) -> Vec<usize> {
    parts
        .iter()
        .scan(0, |at, part| {
            *at += part.len();
            Some(*at)
        })
        .collect()
}

#[test]
fn events_end_with_an_empty_line_of_any_kind() {
    for (text, wanted) in [
        ("data: a\n\ndata: b\n\n", vec![9, 18]),
        ("data: a\r\n\r\n", vec![10, 11]),
        ("data: a\r\rx", vec![9]),
        ("a\n\r\nb", vec![3, 4]),
        ("a\r\nb\r\n", vec![]),
        ("\n", vec![]),
        (":\n\n", vec![3]),
    ] {
        assert_eq!(boundaries(events(), text.as_bytes()), wanted, "{text:?}");
    }
    assert!(events().at_boundary(), "nothing was sent yet");
}

#[test]
fn a_close_frame_is_seen() {
    let mut follow = frames();
    follow.pass(&frame(1, false, b"\x88\x02"));
    assert!(!follow.is_closing(), "its payload is no frame");
    let mut client = Frames::default();
    let close = frame(8, true, &[3, 244]);
    client.pass(&close[..close.len() - 1]);
    assert!(!client.is_closed());
    client.pass(&close[close.len() - 1..]);
    assert!(client.is_closed());
    follow.pass(&frame(8, false, &[]));
    assert!(follow.is_closing() && follow.at_boundary());
}

#[test]
fn long_frames_are_skipped_over() {
    let bytes = [frame(2, false, &[7; 70_000]), frame(2, true, &[7; 300]), frame(9, false, &[])].concat();
    let mut follow = frames();
    assert_eq!(follow.pass_until_boundary(&bytes), Some(0));
    follow.pass(&bytes[..1]);
    assert_eq!(follow.pass_until_boundary(&bytes[1..]), Some(70_000 + 10 - 1));
    follow.pass(&bytes[70_010..70_020]);
    assert_eq!(follow.pass_until_boundary(&bytes[70_020..70_100]), None);
    assert_eq!(follow.pass_until_boundary(&bytes[70_100..]), Some(300 + 8 - 90));
}

proptest! {
    #[test]
    fn frames_end_where_they_end(parts in proptest::collection::vec((0u8..16, any::<bool>(), 0usize..400), 0..12)) {
        let parts: Vec<_> = parts.iter().map(|(op, masked, n)| frame(*op, *masked, &vec![0x88; *n])).collect();
        prop_assert_eq!(boundaries(frames(), &parts.concat()), ends(&parts));
    }

    #[test]
    fn messages_end_where_they_end(parts in proptest::collection::vec(0usize..400, 0..12)) {
        let parts: Vec<_> = parts.iter().map(|n| message(&vec![0; *n])).collect();
        prop_assert_eq!(boundaries(messages(), &parts.concat()), ends(&parts));
    }

    /// Whatever comes, in whatever pieces: the same boundaries as byte by byte, no panic, and none is overrun.
    #[test]
    fn pieces_do_not_matter(
        bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\n'), Just(b'\r'), Just(0)], 0..300),
        cuts in proptest::collection::vec(0usize..300, 0..8),
        kind in 0usize..3,
    ) {
        let make = || [frames, events, messages][kind]();
        let wanted = boundaries(make(), &bytes);
        let mut cuts: Vec<_> = cuts.into_iter().filter(|c| *c <= bytes.len()).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let mut follow = make();
        for piece in cuts.windows(2) {
            let mut other = make();
            other.pass(&bytes[..piece[0]]);
            prop_assert_eq!(follow.at_boundary(), other.at_boundary());
            let here = follow.at_boundary().then_some(piece[0]);
            let next = here.or(wanted.iter().copied().find(|end| *end > piece[0] && *end <= piece[1]));
            prop_assert_eq!(other.pass_until_boundary(&bytes[piece[0]..piece[1]]), next.map(|end| end - piece[0]));
            follow.pass(&bytes[piece[0]..piece[1]]);
        }
    }
}
