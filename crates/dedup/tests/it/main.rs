//! The deduplication store in SQLite: what every such store promises, between processes and over restarts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{path::Path, time::Duration};

use futures::{executor::block_on, future::join_all};
use logwarden_core::{
    Severity, Timestamp,
    dedup::{Claim, DedupStore, Outcome, Reserved, Standing},
    env::Env,
    message::SendId,
    notifier::{ChannelHash, Receipt},
    testing::{FakeEnv, dedup, rows},
};
use logwarden_dedup::{FILE, Options, SqliteDedup};

fn open(dir: &Path, env: &FakeEnv) -> SqliteDedup {
    SqliteDedup::open(dir, &Options::default(), env.clock()).unwrap().0
}

fn env() -> FakeEnv {
    FakeEnv::new(Timestamp::from_secs(1_800_000_000), 1)
}

fn first(env: &FakeEnv) -> Standing {
    Standing::First { at: env.now() }
}

#[test]
fn it_keeps_every_promise() {
    let dir = tempfile::tempdir().unwrap();
    let mut n = 0;
    let fresh = |env: FakeEnv| {
        n += 1;
        open(&dir.path().join(n.to_string()), &env)
    };
    block_on(dedup::every_promise(fresh));
}

#[test]
fn of_several_processes_one_speaks_and_a_restart_forgets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let env = env();
    let hosts: Vec<_> = (0..4).map(|_| open(dir.path(), &env)).collect();
    let keys = [(rows::key(1), rows::rank(Severity::High))];
    let (age, window, lease) = (Duration::ZERO, Duration::from_secs(3600), Duration::from_secs(60));
    let channel = ChannelHash(1);
    let claim = |id| Claim { id: SendId(id), epoch: 1, channel, keys: &keys, age, window, lease };
    for round in 0..20_u128 {
        let claims: Vec<_> = (0..4).map(|host| claim(round << 8 | host)).collect();
        let asked = hosts.iter().zip(&claims).map(|(host, claim)| host.reserve(claim));
        let standings = block_on(join_all(asked)).into_iter().map(Result::unwrap).collect::<Vec<_>>();
        let first: Vec<_> = (0..4).filter(|host| matches!(standings[*host], Standing::First { .. })).collect();
        assert_eq!(first.len(), 1, "{standings:?}");
        block_on(hosts[first[0]].settle(&claims[first[0]], &Outcome::Failed)).unwrap();
    }
    assert_eq!(block_on(hosts[0].reserve(&claim(1 << 50))).unwrap(), first(&env));
    let receipt = Receipt("r1".into());
    let outcome = Outcome::Delivered { receipt: receipt.clone(), reserved: Reserved::At(env.now()) };
    block_on(hosts[0].settle(&claim(1 << 50), &outcome)).unwrap();
    drop(hosts);
    let again = open(dir.path(), &env);
    assert_eq!(block_on(again.reserve(&claim(1 << 50))).unwrap(), Standing::Delivered { receipt: receipt.clone() });
    assert_eq!(block_on(again.reserve(&claim(2 << 50))).unwrap(), Standing::Repeat { receipt, ago: Duration::ZERO });
}

#[test]
fn a_damaged_store_is_set_aside_and_speaks_again() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path(), &env()));
    std::fs::write(dir.path().join(FILE), [0x55; 8192]).unwrap();
    let (store, opened) = SqliteDedup::open(dir.path(), &Options::default(), env().clock()).unwrap();
    assert!(opened.set_aside.is_some_and(|(path, _)| path.exists()));
    let keys = [(rows::key(1), rows::rank(Severity::High))];
    let claim = Claim {
        id: SendId(1),
        epoch: u64::MAX,
        channel: ChannelHash(1),
        keys: &keys,
        age: Duration::MAX,
        window: Duration::MAX,
        lease: Duration::MAX,
    };
    assert_eq!(block_on(store.reserve(&claim)).unwrap(), first(&env()));
    assert!(matches!(block_on(store.reserve(&Claim { id: SendId(2), ..claim })).unwrap(), Standing::Pending { .. }));
}
