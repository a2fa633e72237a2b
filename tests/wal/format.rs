use crate::record::{BLOCK, Kind, Record, Scan, encode, head, kind, scan};

/// Commits of some records each, as the log lays them out.
fn log(commits: &[&[&[u8]]]) -> Vec<u8> {
    let (mut bytes, mut next) = (head(), 1);
    for payloads in commits {
        let (mut commit, begin, first) = (Vec::new(), bytes.len() as u64, next);
        for payload in *payloads {
            encode(&mut commit, begin, next, first, payload);
            next += 1;
        }
        commit.resize(commit.len().next_multiple_of(BLOCK), 0);
        bytes.extend_from_slice(&commit);
    }
    bytes
}

fn records(payloads: &[&[u8]]) -> Vec<Record> {
    (1..).zip(payloads).map(|(sequence, payload)| Record { sequence, payload: payload.to_vec() }).collect()
}

const LARGE: [u8; 5000] = [7; 5000];
/// With its header it fills a block, so that a record begins at a block and no commit does.
const WHOLE: [u8; BLOCK - 24] = [0; BLOCK - 24];
const PAYLOADS: [&[u8]; 8] = [b"a", b"", &LARGE, b"d", &WHOLE, b"f", b"g", b"h"];

/// Where its last commit begins.
const LAST: usize = 6 * BLOCK;

/// A commit of three records and two blocks, one of a record, one of two and two blocks, and one of two.
fn sample() -> Vec<u8> {
    let [a, b, c, d, e, f, g, h] = PAYLOADS;
    log(&[&[a, b, c], &[d], &[e, f], &[g, h]])
}

#[test]
fn what_was_encoded_is_found() {
    let Scan { records: found, last_commit, end, beyond } = scan(&sample(), false);
    assert_eq!(found, records(&PAYLOADS));
    assert_eq!((last_commit, end, beyond), (LAST, LAST + 2 * 25, None));
    let nothing = scan(&[], false);
    assert_eq!((nothing.records.len(), nothing.end, nothing.beyond), (0, BLOCK, None));
}

/// In the last commit a flipped bit shortens the log; before it, it is damage that is told; in padding it is nothing.
#[test]
fn every_byte_with_a_flipped_bit() {
    let whole = sample();
    let all = records(&PAYLOADS);
    for bit in (BLOCK..whole.len()).map(|byte| byte * 8 + byte % 8) {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let Scan { records: found, beyond, .. } = scan(&bytes, false);
        assert!(all.starts_with(&found), "bit {bit}: what was not written was found");
        let (lost, last_commit) = (found.len() < all.len(), bit / 8 >= LAST);
        assert_eq!(beyond.is_some(), lost && !last_commit, "bit {bit}: {} records, {beyond:?}", found.len());
        assert!(found.len() >= 6 || !last_commit, "bit {bit}: more is gone than the last commit");
    }
}

/// However short the file is, what there is of it is a beginning, and no damage.
#[test]
fn every_length() {
    let whole = sample();
    let all = records(&PAYLOADS);
    let mut before = 0;
    for length in 0..=whole.len() {
        let Scan { records: found, beyond, .. } = scan(&whole[..length], false);
        assert!(all.starts_with(&found) && beyond.is_none(), "{length} bytes");
        assert!(found.len() >= before, "{length} bytes");
        before = found.len();
    }
    assert_eq!(before, all.len());
}

/// Blocks that were never written, or that hold what is elsewhere, are none of the log's.
#[test]
fn every_block_missing_or_another() {
    let whole = sample();
    let all = records(&PAYLOADS);
    let blocks = whole.len() / BLOCK;
    for block in 1..blocks {
        for other in (1..=blocks).filter(|other| *other != block) {
            let mut bytes = whole.clone();
            let source = whole.get(other * BLOCK..(other + 1) * BLOCK).unwrap_or(&[0; BLOCK]);
            bytes[block * BLOCK..(block + 1) * BLOCK].copy_from_slice(source);
            let Scan { records: found, beyond, .. } = scan(&bytes, false);
            assert!(all.starts_with(&found), "block {other} in the place of {block}");
            assert!(found.len() < all.len(), "block {other} in the place of {block}");
            assert_eq!(beyond.is_some(), block < LAST / BLOCK, "block {other} in the place of {block}");
        }
    }
}

/// A file that nobody has committed to may be taken, and no other.
#[test]
fn every_beginning() {
    let head = head();
    assert_eq!(kind(&head, BLOCK as u64), Kind::Log);
    assert_eq!(kind(&head, 1 << 40), Kind::Log);
    for written in 0..BLOCK {
        let torn = [&head[..written], &vec![0; BLOCK - written]].concat();
        let complete = head[written..].iter().all(|byte| *byte == 0);
        assert_eq!(kind(&head[..written], written as u64), Kind::Fresh, "{written} bytes");
        assert_eq!(kind(&torn, BLOCK as u64), if complete { Kind::Log } else { Kind::Fresh }, "{written} bytes");
        assert_eq!(kind(&torn, 2 * BLOCK as u64), if complete { Kind::Log } else { Kind::Other }, "{written} bytes");
        let mut damaged = head.clone();
        damaged[written] ^= 0x80;
        assert_eq!(kind(&damaged, BLOCK as u64), Kind::Other, "byte {written}");
    }
    assert_eq!(kind(b"dear diary", 10), Kind::Other);
}

/// Whole records, but elsewhere, or with another number, or of another commit.
#[test]
fn what_does_not_belong_where_it_is() {
    let after_the_first = |begin, sequence, first| {
        let mut bytes = log(&[&[b"one"]]);
        let mut commit = Vec::new();
        encode(&mut commit, begin, sequence, first, b"two");
        bytes.extend_from_slice(&commit);
        scan(&bytes, false).records.len()
    };
    let place = 2 * BLOCK as u64;
    assert_eq!(after_the_first(place, 2, 2), 2, "as it should be");
    assert_eq!(after_the_first(place + 1, 2, 2), 1, "elsewhere");
    assert_eq!(after_the_first(place, 1, 1), 1, "twice");
    assert_eq!(after_the_first(place, 3, 3), 1, "a gap");
    assert_eq!(after_the_first(place, 3, 1), 1, "a gap within a commit");
    assert_eq!(after_the_first(place, 2, 3), 1, "of no commit");
}
