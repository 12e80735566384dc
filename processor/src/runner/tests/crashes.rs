//! Crashes, zombies, commits and snapshots that do not agree.

use std::time::Duration;

use waypost_schemas::topic::TopicPartition;

use super::{
    super::{Error, fault::Step},
    world::{Process, World, files, group},
};
use crate::{alerts::AlertsMachine, inboxes::InboxesMachine, machine::Machine, spatial::SpatialMachine};

/// What becomes of the records that a dead process had sent and nobody had acknowledged.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// They land as they are sent.
    Landed,
    /// All are lost.
    Lost,
    /// Of each partition some land, after the death.
    Late(usize),
}

async fn crashes_at<M: Machine>(step: Step, nth: u32, fate: Fate) {
    let mut world = World::new(u64::from(nth));
    world.feed::<M>(150);
    let held = !matches!(fate, Fate::Landed);
    world.cluster.set_held("a", held);
    let mut process = world.start::<M>("a", Some((step, nth)));
    let died = if held || nth == 0 { process.ended().await } else { world.idle::<M>(&mut process).await };
    // How often it commits, writes snapshots and looks is a matter of time: it may be done before.
    let done = died.is_ok() && nth > 0 && matches!(step, Step::Written | Step::Committed | Step::Looked);
    assert!(done || matches!(died, Err(Error::Planted)), "{step:?} {nth} {fate:?}: {died:?}");
    world.cluster.crash("a");
    if let Fate::Late(records) = fate {
        for topic in World::outputs::<M>() {
            for partition in 0..super::world::KEYED {
                world.cluster.land("a", TopicPartition::new(topic, partition), records);
            }
        }
    }
    if held {
        world.cluster.lose_held("a");
        world.cluster.set_held("a", false);
    }
    world.feed::<M>(50);
    let mut process = world.start::<M>("a", None);
    world.idle::<M>(&mut process).await.unwrap();
    process.stop().await.unwrap();
    world.check::<M>();
}

#[tokio::test]
async fn a_crash_between_any_two_steps_neither_loses_nor_doubles() {
    crash_between_any_two_steps::<SpatialMachine>(&[0, 1, 2, 5, 9]).await;
    crash_between_any_two_steps::<InboxesMachine>(&[0, 2, 5]).await;
}

/// The steps that a machine comes by again and again.
fn steps<M: Machine>() -> Vec<Step> {
    let looked = M::LOOKS_AT.map(|_| Step::Looked);
    [Step::Folded, Step::Sent, Step::Written, Step::Committed].into_iter().chain(looked).collect()
}

async fn crash_between_any_two_steps<M: Machine>(nths: &[u32]) {
    for nth in nths {
        for step in steps::<M>() {
            crashes_at::<M>(step, *nth, Fate::Landed).await;
        }
    }
    for nth in 0..3 {
        crashes_at::<M>(Step::Begun, nth, Fate::Landed).await;
    }
}

#[tokio::test]
async fn what_a_crash_leaves_on_the_wire_may_land_late_or_never() {
    leave_something_on_the_wire::<SpatialMachine>(&[0, 1, 3, 6]).await;
    leave_something_on_the_wire::<InboxesMachine>(&[0, 3]).await;
}

async fn leave_something_on_the_wire<M: Machine>(nths: &[u32]) {
    for nth in nths.iter().copied() {
        for fate in [Fate::Lost, Fate::Late(1), Fate::Late(3), Fate::Late(usize::MAX)] {
            crashes_at::<M>(Step::Folded, nth, fate).await;
            crashes_at::<M>(Step::Sent, nth, fate).await;
        }
    }
}

#[tokio::test]
async fn many_crashes_in_a_row_end_where_none_would() {
    crash_many_times::<SpatialMachine>(12).await;
    crash_many_times::<InboxesMachine>(6).await;
}

async fn crash_many_times<M: Machine>(seeds: u64) {
    for seed in 0..seeds {
        let mut world = World::new(1_000 + seed);
        world.slice_records = 1 + world.dice.below(8) as usize;
        if world.dice.below(3) == 0 {
            world.snapshot_interval = Duration::from_hours(1);
        }
        for _ in 0..8 {
            world.feed::<M>(40);
            let steps: Vec<Step> = steps::<M>().into_iter().chain([Step::Begun]).collect();
            let step = steps[world.dice.below(steps.len() as u64) as usize];
            let nth = world.dice.below(12) as u32;
            let mut process = world.start::<M>("a", Some((step, nth)));
            // It may be done before the crash comes.
            let _ = world.idle::<M>(&mut process).await;
            world.cluster.crash("a");
        }
        let mut process = world.start::<M>("a", None);
        world.idle::<M>(&mut process).await.unwrap();
        world.check::<M>();
    }
}

#[tokio::test]
async fn a_zombie_that_lost_its_partitions_changes_nothing() {
    lose_its_partitions::<SpatialMachine>().await;
    lose_its_partitions::<InboxesMachine>().await;
}

async fn lose_its_partitions<M: Machine>() {
    for seed in 0..6 {
        let mut world = World::new(2_000 + seed);
        world.feed::<M>(60);
        let mut a = world.start::<M>("a", None);
        world.idle::<M>(&mut a).await.unwrap();
        // It hears nothing of the group, and what it sends from now on is late.
        world.cluster.set_suspended("a", true);
        world.cluster.set_held("a", true);
        world.cluster.expire("a");
        let mut b = world.start::<M>("b", None);
        world.feed::<M>(80);
        world.idle::<M>(&mut b).await.unwrap();
        for partition in 0..super::world::KEYED {
            for topic in World::outputs::<M>() {
                world.cluster.land("a", TopicPartition::new(topic, partition), 1 + seed as usize);
            }
        }
        world.cluster.set_held("a", false);
        // It wakes and joins again; both share the partitions.
        world.cluster.set_suspended("a", false);
        world.feed::<M>(80);
        world.idle::<M>(&mut b).await.unwrap();
        a.stop().await.unwrap();
        world.feed::<M>(20);
        world.idle::<M>(&mut b).await.unwrap();
        world.check::<M>();
    }
}

async fn folded<M: Machine>(world: &mut World, records: usize) -> Process {
    world.feed::<M>(records);
    let mut process = world.start::<M>("a", None);
    world.idle::<M>(&mut process).await.unwrap();
    process
}

async fn goes_on<M: Machine>(mut world: World) {
    let mut process = folded::<M>(&mut world, 60).await;
    process.ended_not().await;
    process.stop().await.unwrap();
    world.check::<M>();
}

impl Process {
    /// It runs still.
    async fn ended_not(&mut self) {
        let ended = tokio::time::timeout(Duration::from_millis(5), self.ended()).await;
        assert!(ended.is_err(), "{ended:?}");
    }
}

#[tokio::test]
async fn a_commit_that_went_backwards_sends_copies_that_readers_drop() {
    commit_backwards::<SpatialMachine>().await;
    commit_backwards::<InboxesMachine>().await;
}

async fn commit_backwards<M: Machine>() {
    for back in [0, 1, 7] {
        let mut world = World::new(3_000 + back as u64);
        folded::<M>(&mut world, 100).await.stop().await.unwrap();
        let sent = |w: &World| -> i64 {
            let of = |topic| (0..super::world::KEYED).map(move |p| TopicPartition::new(topic, p));
            World::outputs::<M>().flat_map(of).map(|to| w.end(to)).sum()
        };
        let before = sent(&world);
        // Without a snapshot above the commit, what was sent is sent again.
        std::fs::remove_dir_all(world.directory.path().join("a")).unwrap();
        for source in World::sources::<M>() {
            world.cluster.set_committed(&group::<M>(), source, Some(back));
        }
        folded::<M>(&mut world, 0).await.stop().await.unwrap();
        assert!(sent(&world) > before, "nothing was sent again");
        world.check::<M>();
        goes_on::<M>(world).await;
    }
}

#[tokio::test]
async fn a_snapshot_ahead_of_the_commit_or_behind_it_is_as_good() {
    part_snapshot_and_commit::<SpatialMachine>().await;
    part_snapshot_and_commit::<InboxesMachine>().await;
}

async fn part_snapshot_and_commit<M: Machine>() {
    for (step, snapshots) in [("ahead", true), ("behind", true), ("none", false)] {
        let mut world = World::new(4_000);
        if !snapshots {
            world.snapshot_interval = Duration::from_hours(1);
        }
        folded::<M>(&mut world, 100).await.stop().await.unwrap();
        let sources: Vec<TopicPartition> = World::sources::<M>().collect();
        match step {
            "ahead" => {
                for source in sources {
                    world.cluster.set_committed(&group::<M>(), source, Some(world.end(source) / 2));
                }
            }
            "behind" => {
                for file in files(world.directory.path()) {
                    let name = file.file_name().unwrap().to_string_lossy().into_owned();
                    let newest = files(file.parent().unwrap())
                        .into_iter()
                        .rfind(|f| f.file_name().unwrap().to_string_lossy().starts_with("manifest-"));
                    if name.starts_with("manifest-") && newest.as_ref() == Some(&file) {
                        std::fs::remove_file(file).unwrap();
                    }
                }
            }
            _ => {
                let _ = std::fs::remove_dir_all(world.directory.path().join("a"));
            }
        }
        goes_on::<M>(world).await;
    }
}

#[tokio::test]
async fn a_snapshot_with_a_changed_or_missing_byte_is_the_one_before_or_the_log() {
    harm_snapshots::<SpatialMachine>().await;
    harm_snapshots::<InboxesMachine>().await;
}

async fn harm_snapshots<M: Machine>() {
    type Harm = fn(&mut Vec<u8>);
    let harms: [Harm; 3] = [
        |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        },
        |bytes| bytes.truncate(bytes.len() / 2),
        Vec::clear,
    ];
    for harm in harms {
        for newest_only in [true, false] {
            let mut world = World::new(5_000);
            folded::<M>(&mut world, 100).await.stop().await.unwrap();
            let local = world.local("a");
            let mut harmed = 0;
            for file in files(world.directory.path()) {
                let name = file.file_name().unwrap().to_string_lossy().into_owned();
                let siblings = files(file.parent().unwrap());
                let is_newest = siblings
                    .iter()
                    .rev()
                    .find(|f| f.file_name().unwrap().to_string_lossy().starts_with("manifest-"))
                    == Some(&file);
                if name == "lock" || newest_only && !is_newest {
                    continue;
                }
                let mut bytes = std::fs::read(&file).unwrap();
                harm(&mut bytes);
                std::fs::write(&file, bytes).unwrap();
                harmed += 1;
            }
            assert!(harmed >= 3, "only {harmed} files");
            goes_on_with::<M>(&mut world).await;
            // What was broken is gone, and whole ones stand in its place.
            for partition in 0..super::world::KEYED {
                let owner = super::super::fold::owner::<M>(partition);
                let all = local.list(owner).unwrap();
                assert!(!all.is_empty());
                for next in all {
                    let manifest = local.manifest(owner, next).unwrap();
                    local.chunks(owner, &manifest).unwrap();
                }
            }
        }
    }
}

async fn goes_on_with<M: Machine>(world: &mut World) {
    folded::<M>(world, 60).await.stop().await.unwrap();
    world.check::<M>();
}

#[tokio::test]
async fn a_clean_stop_leaves_a_snapshot_and_a_commit_at_the_end() {
    stop_cleanly::<SpatialMachine>().await;
    stop_cleanly::<InboxesMachine>().await;
}

async fn stop_cleanly<M: Machine>() {
    let mut world = World::new(6_000);
    world.snapshot_interval = Duration::from_hours(1);
    folded::<M>(&mut world, 100).await.stop().await.unwrap();
    for source in World::sources::<M>() {
        let owner = super::super::fold::owner::<M>(source.partition);
        assert_eq!(world.local("a").list(owner).unwrap().last(), Some(&world.end(source)), "{source}");
    }
    goes_on::<M>(world).await;
}

#[tokio::test]
async fn no_snapshot_is_published_before_the_effects_of_what_it_covers_are_durable() {
    hold_effects_back::<SpatialMachine>().await;
    hold_effects_back::<InboxesMachine>().await;
}

async fn hold_effects_back<M: Machine>() {
    let mut world = World::new(6_500);
    world.slice_records = 1;
    world.cluster.set_held("a", true);
    let process = world.start::<M>("a", None);
    for _ in 0..40 {
        world.feed::<M>(5);
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    let first_causes = world.first_causes::<M>();
    assert_eq!(first_causes.len(), super::world::KEYED as usize);
    for (source, first) in first_causes {
        let owner = super::super::fold::owner::<M>(source.partition);
        let published = world.local("a").list(owner).unwrap();
        assert!(published.last().is_none_or(|next| *next <= first), "{source}: {published:?} above {first}");
    }
    // Once they are durable, it is published.
    world.cluster.set_held("a", false);
    process.stop().await.unwrap();
    world.cluster.lose_held("a");
    goes_on::<M>(world).await;
}

#[tokio::test]
async fn alerts_folds_the_copies_of_matches_once() {
    for nth in [0, 2, 5] {
        for step in [Step::Folded, Step::Sent, Step::Written, Step::Committed] {
            let mut world = World::new(7_000);
            // A spatial machine that died and sent again: copies on matches.
            folded::<SpatialMachine>(&mut world, 150).await.stop().await.unwrap();
            for source in World::sources::<SpatialMachine>() {
                world.cluster.set_committed(&group::<SpatialMachine>(), source, Some(3));
            }
            std::fs::remove_dir_all(world.directory.path().join("a")).unwrap();
            folded::<SpatialMachine>(&mut world, 0).await.stop().await.unwrap();
            let mut process = world.start::<AlertsMachine>("b", Some((step, nth)));
            // It may be done before the crash comes.
            let _ = world.idle::<AlertsMachine>(&mut process).await;
            world.cluster.crash("b");
            let mut process = world.start::<AlertsMachine>("b", None);
            world.idle::<AlertsMachine>(&mut process).await.unwrap();
            process.stop().await.unwrap();
            world.check::<AlertsMachine>();
        }
    }
}
