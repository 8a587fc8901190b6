//! How prompt predictor and memory do together: against the truth of phantoms that move, hide, freeze and leave the picture.
//!
//! `cargo bench --bench policies -- WEIGHTS PPN SIDE OUT [PART...]`: SAM 2 weights and a predictor that know the phantom, the side of the
//! network's input, a folder for `policies.md` and `occlusion.svg`, and parts of names of policies and situations, if not all are
//! wanted. `benches/results/memory.md` says how such weights are trained. The patients are none of those that were trained on.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use sonomask::chart::{Chart, Panel, Series};
use sonomask::frame::{ImageView, PixelFormat, Plane, YuvColor};
use sonomask::mask::Mask;
use sonomask::phantom::{FrameRange, Occlusion, Phantom, PhantomClass, PhantomConfig};
use sonomask::segment::memory::{Ask, BankLimits, Blend, MemorySettings};
use sonomask::segment::{DeviceChoice, Guidance, Mode, ModelSpec, Segmenter, load};
use sonomask::stage::StageTimes;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Side of the pictures.
const SIDE: usize = 256;
const FRAMES: u64 = 60;
/// Frames on which a structure is hidden, or the scanner frozen.
const AWAY: FrameRange = FrameRange { start: 20, end: 38 };
/// Patients of each situation.
const PATIENTS: u64 = 3;
const FIRST_SEED: u64 = 70_000;
/// Of so many of the policies every situation is shown.
const DETAILED: usize = 5;
/// And so many are drawn.
const CHARTED: usize = 3;
/// Pixels from which a structure is in view, and a mask is one.
const SOME: usize = 40;
/// Dice from which a structure that was away counts as found again.
const FOUND: f64 = 0.5;

/// What happens to a structure, frame by frame.
struct Sequence {
    pictures: Vec<Vec<u8>>,
    /// Of each frame, of each class.
    truth: Vec<Vec<Mask>>,
}

fn sequence(config: PhantomConfig) -> Result<Sequence> {
    let mut phantom = Phantom::new(config)?;
    let mut made = Sequence { pictures: Vec::new(), truth: Vec::new() };
    for index in 0..FRAMES {
        let frame = phantom.frame(index);
        made.pictures.push(frame.image);
        made.truth.push(frame.truth.into_iter().map(|t| t.mask).collect());
    }
    Ok(made)
}

/// Situations by their names, each of several patients.
fn situations() -> Result<Vec<(&'static str, Vec<Sequence>)>> {
    let usual = PhantomConfig { width: SIDE, height: SIDE, motion_mm: 3.0, ..PhantomConfig::default() };
    let of = |name: &'static str, change: fn(&mut PhantomConfig, PhantomClass)| {
        let patients = (0..PATIENTS).map(|n| {
            let mut config = PhantomConfig { seed: FIRST_SEED + n, ..usual.clone() };
            change(&mut config, PhantomClass::ALL[n as usize % PhantomClass::ALL.len()]);
            sequence(config)
        });
        Ok((name, patients.collect::<Result<Vec<_>>>()?))
    };
    [
        of("still", |c, _| (c.motion_mm, c.pulse_fraction) = (0.0, 0.0)),
        of("moving", |c, _| (c.motion_mm, c.motion_hz) = (6.0, 0.8)),
        of("decorrelating", |c, _| c.decorrelation_rate = 8.0),
        of("out of plane", |c, _| (c.out_of_plane_mm, c.motion_hz) = (8.0, 0.8)),
        of("occluded", |c, class| {
            c.occlusion = Some(Occlusion { start: AWAY.start, end: AWAY.end, class });
        }),
        of("frozen", |c, _| c.freeze = Some(AWAY)),
        of("hidden at first", |c, class| c.occlusion = Some(Occlusion { start: 0, end: AWAY.end, class })),
        of("leaving", |c, _| (c.linear_width_mm, c.motion_mm, c.motion_hz) = (24.0, 10.0, 0.6)),
    ]
    .into_iter()
    .collect()
}

/// Ways to segment a stream; without settings every frame is seen for the first time.
fn policies() -> Vec<(&'static str, Option<MemorySettings>)> {
    let usual = MemorySettings::default();
    let every = MemorySettings { ask: Ask::Every, ..usual };
    let limits = |limits: BankLimits| Some(MemorySettings { limits, ..usual });
    let sam2 = BankLimits::SAM2;
    vec![
        ("per frame", None),
        ("memory alone", Some(MemorySettings { ask: Ask::First, ..usual })),
        ("both, when lost", Some(usual)),
        ("both, when lost, trial = 0", Some(MemorySettings { trial: 0, ..usual })),
        ("both, when lost, trial = 2", Some(MemorySettings { trial: 2, ..usual })),
        ("both, every 10th frame", Some(MemorySettings { ask: Ask::Interval(10), ..usual })),
        ("both, every frame", Some(every)),
        (
            "both, every frame, the predictor's shown",
            Some(MemorySettings { blend: Blend::Predictor, ..every }),
        ),
        ("both, every frame, the mean shown", Some(MemorySettings { blend: Blend::Mean, ..every })),
        ("both, every frame, patience = 1", Some(MemorySettings { patience: 1, ..every })),
        ("memory alone, unsure frames written", {
            Some(MemorySettings { ask: Ask::First, write_unsure: true, ..usual })
        }),
        ("recent = 1", limits(BankLimits { recent: 1, ..sam2 })),
        ("recent = 0", limits(BankLimits { recent: 0, ..sam2 })),
        ("stride = 3", limits(BankLimits { stride: 3, ..sam2 })),
        ("pointers = 1", limits(BankLimits { pointers: 1, ..sam2 })),
        ("write_every = 3", Some(MemorySettings { write_every: 3, ..usual })),
    ]
}

/// What a policy came to in one situation.
#[derive(Default)]
struct Tally {
    /// Of each structure in view.
    dice: Vec<f64>,
    /// Of each structure out of view, whether a mask was shown.
    phantoms: Vec<bool>,
    /// Times that a mask went over to another structure.
    switches: usize,
    /// Frames from each return until it was found again.
    recoveries: Vec<usize>,
    not_recovered: usize,
    /// Dice of each mask with the one before it.
    stability: Vec<f64>,
    ms: Vec<f64>,
}

fn mean(of: &[f64]) -> f64 {
    of.iter().sum::<f64>() / of.len() as f64
}

fn common(a: &Mask, b: &Mask) -> usize {
    a.data().iter().zip(b.data()).filter(|(a, b)| **a > 0 && **b > 0).count()
}

/// Dice of what was shown; a mask that is missing, or empty, has none of the structure.
fn dice(shown: Option<&Mask>, truth: &Mask) -> f64 {
    shown.and_then(|mask| mask.dice(truth)).unwrap_or(0.0)
}

/// Shows a sequence, and what came of it: of each frame the masks by class.
fn segment(
    model: &mut dyn Segmenter,
    of: &Sequence,
    tally: &mut Tally,
) -> Result<Vec<BTreeMap<usize, Mask>>> {
    model.forget(None);
    let guidance = Guidance { mode: Mode::Autonomous, prompts: Vec::new() };
    let mut shown = Vec::new();
    for picture in &of.pictures {
        let plane = Plane { data: picture, stride: SIDE };
        let view = ImageView::new(PixelFormat::Gray8, SIDE, SIDE, YuvColor::default(), vec![plane])?;
        let start = Instant::now();
        let found = model.segment(&view, &guidance, false, &mut StageTimes::default())?;
        tally.ms.push(start.elapsed().as_secs_f64() * 1e3);
        shown.push(found.into_iter().filter(|m| m.mask.area() > 0).map(|m| (m.class, m.mask)).collect());
    }
    Ok(shown)
}

fn count(tally: &mut Tally, shown: &[BTreeMap<usize, Mask>], of: &Sequence) {
    for class in 0..PhantomClass::ALL.len() {
        let (mut elsewhere, mut seen, mut away, mut waiting) = (false, false, false, None);
        for (t, truth) in of.truth.iter().enumerate() {
            let (mask, own) = (shown[t].get(&class), &truth[class]);
            let in_view = own.area() >= SOME;
            if in_view {
                tally.dice.push(dice(mask, own));
                waiting = waiting.or((seen && away).then_some(t));
                if let Some(since) = waiting
                    && dice(mask, own) >= FOUND
                {
                    tally.recoveries.push(t - since);
                    waiting = None;
                }
                (seen, away) = (true, false);
            } else if own.area() == 0 {
                tally.phantoms.push(mask.is_some_and(|m| m.area() >= SOME));
                away = true;
                tally.not_recovered += usize::from(waiting.take().is_some());
            }
            if let Some(mask) = mask {
                let others = truth.iter().enumerate().filter(|(other, _)| *other != class);
                let other = others.map(|(_, m)| common(mask, m)).max().unwrap_or(0);
                let now = other > common(mask, own) && 2 * other > mask.area();
                tally.switches += usize::from(now && !elsewhere);
                elsewhere = now;
            }
            if let Some(before) = t.checked_sub(1).map(|t| shown[t].get(&class)) {
                match (before, mask) {
                    (Some(a), Some(b)) => tally.stability.push(dice(Some(a), b)),
                    (None, None) => {}
                    _ => tally.stability.push(0.0),
                }
            }
        }
        tally.not_recovered += usize::from(waiting.is_some());
    }
}

/// The figures of a row.
fn line(tally: &mut Tally) -> String {
    let phantoms = tally.phantoms.iter().filter(|shown| **shown).count();
    let of_phantoms = match tally.phantoms.len() {
        0 => "–".to_owned(),
        n => format!("{phantoms} of {n}"),
    };
    tally.recoveries.sort_unstable();
    let recovery = match (tally.recoveries.get(tally.recoveries.len() / 2), tally.not_recovered) {
        (None, 0) => "–".to_owned(),
        (None, never) => format!("never ({never})"),
        (Some(median), 0) => format!("{median} ({})", tally.recoveries.len()),
        (Some(median), never) => format!("{median} ({}), never {never}", tally.recoveries.len()),
    };
    tally.ms.sort_by(f64::total_cmp);
    format!(
        "| {:.3} | {of_phantoms} | {} | {recovery} | {:.3} | {:.0} |",
        mean(&tally.dice),
        tally.switches,
        mean(&tally.stability),
        tally.ms[tally.ms.len() / 2],
    )
}

/// What a policy came to.
struct Measured {
    /// Of all situations together.
    overall: String,
    /// Of each.
    situations: Vec<String>,
    /// Dice over the frames of those with an occlusion, by the class that is hidden.
    hidden: Vec<(usize, Series)>,
}

fn measure(spec: &ModelSpec, name: &str, situations: &[(&'static str, Vec<Sequence>)]) -> Result<Measured> {
    let mut model = load(spec, &DeviceChoice::Auto.resolve()?)?;
    let mut all = Tally::default();
    let (mut rows, mut hidden) = (Vec::new(), Vec::new());
    for (situation, patients) in situations {
        let mut tally = Tally::default();
        for (patient, sequence) in patients.iter().enumerate() {
            let shown = segment(&mut *model, sequence, &mut tally)?;
            count(&mut tally, &shown, sequence);
            if *situation == "occluded" {
                let class = patient % PhantomClass::ALL.len();
                let points = sequence.truth.iter().zip(&shown).enumerate().map(|(t, (truth, m))| {
                    let own = &truth[class];
                    // A gap while it is hidden.
                    (t as f64, if own.area() >= SOME { dice(m.get(&class), own) } else { f64::NAN })
                });
                let series = Series { name: name.into(), points: points.collect(), ..Series::default() };
                hidden.push((class, series));
            }
        }
        rows.push(format!("| {situation} | {name} {}\n", line(&mut tally)));
        all.dice.append(&mut tally.dice);
        all.phantoms.append(&mut tally.phantoms);
        all.recoveries.append(&mut tally.recoveries);
        all.stability.append(&mut tally.stability);
        all.ms.append(&mut tally.ms);
        all.switches += tally.switches;
        all.not_recovered += tally.not_recovered;
    }
    let overall = format!("| {name} {}\n", line(&mut all));
    print!("{overall}");
    Ok(Measured { overall, situations: rows, hidden })
}

fn main() -> Result<()> {
    sonomask::begin::with_settings();
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let [weights, ppn, side, out, only @ ..] = &args[..] else {
        println!(
            "cargo bench --bench policies -- WEIGHTS PPN SIDE OUT [PARTS OF NAMES]: skipped, no predictor of SAM 2 given"
        );
        return Ok(());
    };
    let side = side.parse()?;
    let (mut situations, mut policies) = (situations()?, policies());
    let wanted = |name: &str| only.iter().any(|part| name.contains(part.as_str()));
    if situations.iter().any(|(name, _)| wanted(name)) {
        situations.retain(|(name, _)| wanted(name));
    }
    if policies.iter().any(|(name, _)| wanted(name)) {
        policies.retain(|(name, _)| wanted(name));
    }
    // Two at a time with a thread each: networks this small gain little from a second one.
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, Measured)>> {
        let mut done = Vec::new();
        while let Some((rank, (name, memory))) =
            Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|rank| Some((rank, policies.get(rank)?)))
        {
            let spec = ModelSpec {
                ppn: Some(ppn.into()),
                input_size: Some(side),
                memory: *memory,
                threads: 1,
                ..ModelSpec::new(weights)
            };
            done.push((rank, measure(&spec, name, &situations)?));
        }
        Ok(done)
    };
    let measured: BTreeMap<usize, Measured> = std::thread::scope(|scope| {
        let workers = [scope.spawn(work), scope.spawn(work)];
        let done = workers.map(|w| w.join().map_err(|_| "a policy panicked")?);
        done.into_iter().collect::<Result<Vec<_>>>().map(|d| d.into_iter().flatten().collect())
    })?;
    let head = "Dice | masks of nothing | switches | frames to find again | stability | ms |\n";
    let mut tables = format!("| policy | {head}|---|---:|---:|---:|---:|---:|---:|\n");
    tables.extend(measured.values().map(|m| m.overall.as_str()));
    write!(tables, "\n| situation | policy | {head}|---|---|---:|---:|---:|---:|---:|---:|\n")?;
    for situation in 0..situations.len() {
        tables.extend(measured.values().take(DETAILED).map(|m| m.situations[situation].as_str()));
    }
    let panels = PhantomClass::ALL.iter().enumerate().map(|(class, of)| {
        let hidden = measured.values().take(CHARTED).flat_map(|m| &m.hidden);
        Panel {
            x_label: "frame".into(),
            y_label: format!("Dice of the {}", of.name()),
            y_range: Some((0.0, 1.0)),
            series: hidden.filter(|(c, _)| *c == class).map(|(_, s)| s.clone()).collect(),
            ..Panel::default()
        }
    });
    let title = format!("Hidden from frame {} to {}", AWAY.start, AWAY.end - 1);
    let chart = Chart { title, panels: panels.collect() };
    let out = Path::new(out);
    std::fs::create_dir_all(out)?;
    std::fs::write(out.join("policies.md"), tables)?;
    std::fs::write(out.join("occlusion.svg"), chart.svg(900, 800)?)?;
    println!("written: {}", out.display());
    Ok(())
}
