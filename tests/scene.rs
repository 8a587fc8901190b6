//! Cuts and freezes of the phantom are seen on their frames, and nothing else is taken for one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use sonomask::frame::Rgb;
use sonomask::phantom::{FrameRange, Geometry, Occlusion, Phantom, PhantomClass, PhantomConfig};
use sonomask::segment::memory::{Continuity, MemorySettings, Scene};
use sonomask::segment::preprocess::Picture;

/// Frames that do not simply go on, with every `gap`-th frame of the phantom shown.
fn noticed(config: PhantomConfig, frames: u64, gap: usize) -> Vec<(u64, Continuity)> {
    let settings = MemorySettings::default();
    let mut scene = Scene::new(settings.freeze_after, settings.scene_cut);
    let (width, height) = (config.width, config.height);
    let mut phantom = Phantom::new(config).unwrap();
    let looked = (0..frames).step_by(gap).map(|i| {
        let gray = phantom.image(i);
        let data = gray.iter().flat_map(|&v| [v; 3]).collect();
        (i, scene.look(&Picture::Rgb(&Rgb { width, height, data })))
    });
    looked.filter(|(_, what)| *what != Continuity::Live).collect()
}

fn phantom(seed: u64) -> PhantomConfig {
    PhantomConfig { seed, width: 320, height: 240, ..PhantomConfig::default() }
}

#[test]
fn another_patient_is_another_scene() {
    for (geometry, seed) in [(Geometry::Linear, 41), (Geometry::Sector, 45), (Geometry::Linear, 50)] {
        let config = PhantomConfig { geometry, scene_cut: Some(24), ..phantom(seed) };
        assert_eq!(noticed(config, 40, 1), [(24, Continuity::Cut)], "{geometry:?} {seed}");
    }
    let slow = PhantomConfig { scene_cut: Some(24), ..phantom(41) };
    assert_eq!(noticed(slow, 48, 3), [(24, Continuity::Cut)]);
}

#[test]
fn motion_decorrelation_and_a_loss_of_contact_are_none() {
    let wild = PhantomConfig { motion_mm: 9.0, motion_hz: 1.5, decorrelation_rate: 8.0, ..phantom(42) };
    let still = PhantomConfig { motion_mm: 0.0, decorrelation_rate: 0.0, ..phantom(43) };
    let hidden = |class, seed| {
        let occlusion = Some(Occlusion { start: 20, end: 35, class });
        PhantomConfig { occlusion, ..phantom(seed) }
    };
    let lost = [(PhantomClass::Vessel, 45), (PhantomClass::Nerve, 46), (PhantomClass::Bone, 46)];
    let lost = lost.map(|(class, seed)| hidden(class, seed));
    for config in [wild, still, phantom(1)].into_iter().chain(lost) {
        assert_eq!(noticed(config.clone(), 60, 1), [], "{config:?}");
    }
}

#[test]
fn darkness_between_two_scenes_hides_no_cut_and_is_none() {
    let dark = |cut| {
        let config = PhantomConfig { scene_cut: cut, ..phantom(41) };
        let settings = MemorySettings { freeze_after: 0, ..MemorySettings::default() };
        let mut scene = Scene::new(settings.freeze_after, settings.scene_cut);
        let mut phantom = Phantom::new(config).unwrap();
        let mut seen = Vec::new();
        for i in 0..30 {
            let gray = if (20..24).contains(&i) { vec![0; 320 * 240] } else { phantom.image(i) };
            let data = gray.iter().flat_map(|&v| [v; 3]).collect();
            let what = scene.look(&Picture::Rgb(&Rgb { width: 320, height: 240, data }));
            if what != Continuity::Live {
                seen.push((i, what));
            }
        }
        seen
    };
    assert_eq!(dark(Some(22)), [(24, Continuity::Cut)]);
    assert_eq!(dark(None), []);
}

#[test]
fn a_freeze_is_noticed_after_its_time_and_so_is_its_end() {
    let config = PhantomConfig { freeze: Some(FrameRange { start: 15, end: 35 }), ..phantom(44) };
    let seen = noticed(config, 45, 1);
    let frozen: Vec<u64> = seen.iter().filter(|(_, c)| *c == Continuity::Frozen).map(|(i, _)| *i).collect();
    // The picture of frame 15 is the first; the tenth equal one makes a freeze.
    assert_eq!(frozen, (25..35).collect::<Vec<_>>());
    assert_eq!(seen.last(), Some(&(35, Continuity::Thawed)));
    assert_eq!(seen.len(), 11);
}

#[test]
fn pictures_of_any_size_are_compared() {
    let mut scene = Scene::new(2, 0.25);
    for (width, height) in [(1, 1), (7, 300), (64, 64), (0, 0)] {
        let picture = Rgb { width, height, data: vec![9; width * height * 3] };
        scene.forget();
        let seen: Vec<Continuity> = (0..3).map(|_| scene.look(&Picture::Rgb(&picture))).collect();
        assert_eq!(seen, [Continuity::Live, Continuity::Live, Continuity::Frozen], "{width}x{height}");
    }
}
