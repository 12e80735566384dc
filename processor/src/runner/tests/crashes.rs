//! Crashes, zombies, commits and snapshots that do not agree.

use std::time::Duration;

use waypost_schemas::topic::{Topic, TopicPartition};

use super::{
    super::{Error, fault::Step},
    world::{Process, World, files, group},
};
use crate::{alerts::AlertsMachine, spatial::SpatialMachine};

const OUTPUTS: [Topic; 2] = [Topic::Matches, Topic::DeadLetters];

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

async fn crashes_at(step: Step, nth: u32, fate: Fate) {
    let mut world = World::new(u64::from(nth));
    world.reports(150);
    let held = !matches!(fate, Fate::Landed);
    world.cluster.set_held("a", held);
    let mut process = world.start::<SpatialMachine>("a", Some((step, nth)));
    let died = if held || nth == 0 {
        process.ended().await
    } else {
        world.idle::<SpatialMachine>(&mut process).await
    };
    // How often it commits and writes snapshots is a matter of time: it may be done before.
    let done = died.is_ok() && nth > 0 && matches!(step, Step::Written | Step::Committed);
    assert!(done || matches!(died, Err(Error::Planted)), "{step:?} {nth} {fate:?}: {died:?}");
    world.cluster.crash("a");
    if let Fate::Late(records) = fate {
        for topic in OUTPUTS {
            for partition in 0..super::world::KEYED {
                world.cluster.land("a", TopicPartition::new(topic, partition), records);
            }
        }
    }
    if held {
        world.cluster.lose_held("a");
        world.cluster.set_held("a", false);
    }
    world.reports(50);
    let mut process = world.start::<SpatialMachine>("a", None);
    world.idle::<SpatialMachine>(&mut process).await.unwrap();
    process.stop().await.unwrap();
    world.check::<SpatialMachine>(&OUTPUTS);
}

#[tokio::test]
async fn a_crash_between_any_two_steps_neither_loses_nor_doubles() {
    for nth in [0, 1, 2, 5, 9] {
        for step in [Step::Folded, Step::Sent, Step::Written, Step::Committed] {
            crashes_at(step, nth, Fate::Landed).await;
        }
    }
    for nth in 0..3 {
        crashes_at(Step::Begun, nth, Fate::Landed).await;
    }
}

#[tokio::test]
async fn what_a_crash_leaves_on_the_wire_may_land_late_or_never() {
    for nth in [0, 1, 3, 6] {
        for fate in [Fate::Lost, Fate::Late(1), Fate::Late(3), Fate::Late(usize::MAX)] {
            crashes_at(Step::Folded, nth, fate).await;
            crashes_at(Step::Sent, nth, fate).await;
        }
    }
}

#[tokio::test]
async fn many_crashes_in_a_row_end_where_none_would() {
    for seed in 0..12 {
        let mut world = World::new(1_000 + seed);
        world.slice_records = 1 + world.dice.below(8) as usize;
        if world.dice.below(3) == 0 {
            world.snapshot_interval = Duration::from_hours(1);
        }
        for _ in 0..8 {
            world.reports(40);
            let steps = [Step::Begun, Step::Folded, Step::Sent, Step::Written, Step::Committed];
            let step = steps[world.dice.below(5) as usize];
            let nth = world.dice.below(12) as u32;
            let mut process = world.start::<SpatialMachine>("a", Some((step, nth)));
            // It may be done before the crash comes.
            let _ = world.idle::<SpatialMachine>(&mut process).await;
            world.cluster.crash("a");
        }
        let mut process = world.start::<SpatialMachine>("a", None);
        world.idle::<SpatialMachine>(&mut process).await.unwrap();
        world.check::<SpatialMachine>(&OUTPUTS);
    }
}

#[tokio::test]
async fn a_zombie_that_lost_its_partitions_changes_nothing() {
    for seed in 0..6 {
        let mut world = World::new(2_000 + seed);
        world.reports(60);
        let mut a = world.start::<SpatialMachine>("a", None);
        world.idle::<SpatialMachine>(&mut a).await.unwrap();
        // It hears nothing of the group, and what it sends from now on is late.
        world.cluster.set_suspended("a", true);
        world.cluster.set_held("a", true);
        world.cluster.expire("a");
        let mut b = world.start::<SpatialMachine>("b", None);
        world.reports(80);
        world.idle::<SpatialMachine>(&mut b).await.unwrap();
        for partition in 0..super::world::KEYED {
            world.cluster.land("a", TopicPartition::new(Topic::Matches, partition), 1 + seed as usize);
        }
        world.cluster.set_held("a", false);
        // It wakes and joins again; both share the partitions.
        world.cluster.set_suspended("a", false);
        world.reports(80);
        world.idle::<SpatialMachine>(&mut b).await.unwrap();
        a.stop().await.unwrap();
        world.reports(20);
        world.idle::<SpatialMachine>(&mut b).await.unwrap();
        world.check::<SpatialMachine>(&OUTPUTS);
    }
}

async fn folded(world: &mut World, records: usize) -> Process {
    world.reports(records);
    let mut process = world.start::<SpatialMachine>("a", None);
    world.idle::<SpatialMachine>(&mut process).await.unwrap();
    process
}

async fn goes_on(mut world: World) {
    let mut process = folded(&mut world, 60).await;
    process.ended_not().await;
    process.stop().await.unwrap();
    world.check::<SpatialMachine>(&OUTPUTS);
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
    for back in [0, 1, 7] {
        let mut world = World::new(3_000 + back as u64);
        folded(&mut world, 100).await.stop().await.unwrap();
        let matches = |w: &World| -> i64 {
            (0..super::world::KEYED).map(|p| w.end(TopicPartition::new(Topic::Matches, p))).sum()
        };
        let before = matches(&world);
        // Without a snapshot above the commit, what was sent is sent again.
        std::fs::remove_dir_all(world.directory.path().join("a")).unwrap();
        for source in World::sources::<SpatialMachine>() {
            world.cluster.set_committed(&group::<SpatialMachine>(), source, Some(back));
        }
        folded(&mut world, 0).await.stop().await.unwrap();
        assert!(matches(&world) > before, "nothing was sent again");
        world.check::<SpatialMachine>(&OUTPUTS);
        goes_on(world).await;
    }
}

#[tokio::test]
async fn a_snapshot_ahead_of_the_commit_or_behind_it_is_as_good() {
    for (step, snapshots) in [("ahead", true), ("behind", true), ("none", false)] {
        let mut world = World::new(4_000);
        if !snapshots {
            world.snapshot_interval = Duration::from_hours(1);
        }
        folded(&mut world, 100).await.stop().await.unwrap();
        let sources: Vec<TopicPartition> = World::sources::<SpatialMachine>().collect();
        match step {
            "ahead" => {
                for source in sources {
                    world.cluster.set_committed(
                        &group::<SpatialMachine>(),
                        source,
                        Some(world.end(source) / 2),
                    );
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
        goes_on(world).await;
    }
}

#[tokio::test]
async fn a_snapshot_with_a_changed_or_missing_byte_is_the_one_before_or_the_log() {
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
            folded(&mut world, 100).await.stop().await.unwrap();
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
            goes_on_with(&mut world).await;
            // What was broken is gone, and whole ones stand in its place.
            for partition in 0..super::world::KEYED {
                let owner = super::super::fold::owner::<SpatialMachine>(partition);
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

async fn goes_on_with(world: &mut World) {
    folded(world, 60).await.stop().await.unwrap();
    world.check::<SpatialMachine>(&OUTPUTS);
}

#[tokio::test]
async fn a_clean_stop_leaves_a_snapshot_and_a_commit_at_the_end() {
    let mut world = World::new(6_000);
    world.snapshot_interval = Duration::from_hours(1);
    folded(&mut world, 100).await.stop().await.unwrap();
    for source in World::sources::<SpatialMachine>() {
        let owner = super::super::fold::owner::<SpatialMachine>(source.partition);
        assert_eq!(world.local("a").list(owner).unwrap().last(), Some(&world.end(source)), "{source}");
    }
    goes_on(world).await;
}

#[tokio::test]
async fn no_snapshot_is_published_before_the_effects_of_what_it_covers_are_durable() {
    let mut world = World::new(6_500);
    world.slice_records = 1;
    world.cluster.set_held("a", true);
    let process = world.start::<SpatialMachine>("a", None);
    for _ in 0..40 {
        world.reports(5);
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    let first_causes = world.first_causes::<SpatialMachine>();
    assert_eq!(first_causes.len(), super::world::KEYED as usize);
    for (source, first) in first_causes {
        let owner = super::super::fold::owner::<SpatialMachine>(source.partition);
        let published = world.local("a").list(owner).unwrap();
        assert!(published.last().is_none_or(|next| *next <= first), "{source}: {published:?} above {first}");
    }
    // Once they are durable, it is published.
    world.cluster.set_held("a", false);
    process.stop().await.unwrap();
    world.cluster.lose_held("a");
    goes_on(world).await;
}

#[tokio::test]
async fn alerts_folds_the_copies_of_matches_once() {
    for nth in [0, 2, 5] {
        for step in [Step::Folded, Step::Sent, Step::Written, Step::Committed] {
            let mut world = World::new(7_000);
            // A spatial machine that died and sent again: copies on matches.
            folded(&mut world, 150).await.stop().await.unwrap();
            for source in World::sources::<SpatialMachine>() {
                world.cluster.set_committed(&group::<SpatialMachine>(), source, Some(3));
            }
            std::fs::remove_dir_all(world.directory.path().join("a")).unwrap();
            folded(&mut world, 0).await.stop().await.unwrap();
            let mut process = world.start::<AlertsMachine>("b", Some((step, nth)));
            // It may be done before the crash comes.
            let _ = world.idle::<AlertsMachine>(&mut process).await;
            world.cluster.crash("b");
            let mut process = world.start::<AlertsMachine>("b", None);
            world.idle::<AlertsMachine>(&mut process).await.unwrap();
            process.stop().await.unwrap();
            world.check::<AlertsMachine>(&[Topic::Inboxes]);
        }
    }
}
