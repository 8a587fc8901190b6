//! Features that are kept on disk: found again where they would come out the same, encoded anew where not.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

use image::Luma;
use sonomask::segment::{EncoderLora, Precision};
use sonomask::train::{Ending, TrainSpec};

use crate::training_support::{SIDE, configure, ended, folder, pictures, read_into, rewrite, run, sonomask};

#[test]
fn features_are_encoded_again_where_what_they_come_from_is_another_thing() {
    let root = folder();
    let data = pictures(root.path());
    let weights = ["1", "2"].map(|seed| {
        let file = root.path().join(format!("{seed}.safetensors"));
        let mut made = sonomask();
        made.args(["weights", "generate", "sam2.1-hiera-tiny", "--seed", seed]).arg(&file);
        ended(&made.output().unwrap(), 0);
        file
    });
    let config = configure(root.path(), &data);
    let own = format!("weights = \"{}/weights/lite_medsam.pth\"", env!("CARGO_MANIFEST_DIR"));
    let given = format!("weights = {:?}", weights[0]);
    rewrite(&config, |text| text.replace(&own, &given).replace(SIDE, "input_size = 128"));
    let spec = read_into(&config, "out");

    let pattern = root.path().join("features/*/*.safetensors").to_string_lossy().into_owned();
    let kept = || -> BTreeMap<PathBuf, SystemTime> {
        let files = glob::glob(&pattern).unwrap().map(Result::unwrap);
        files.map(|file| (file.clone(), file.metadata().unwrap().modified().unwrap())).collect()
    };
    // How many views a run that begins so encodes; what was there stays as it was.
    let mut runs = 0;
    let mut encodes = |change: &dyn Fn(&mut TrainSpec)| {
        let before = kept();
        runs += 1;
        let mut spec = TrainSpec { out: root.path().join(format!("run-{runs}")), ..spec.clone() };
        change(&mut spec);
        assert_eq!(run(&spec, false, 1).ending, Ending::Stopped);
        let after = kept();
        assert!(before.iter().all(|(file, written)| after.get(file) == Some(written)));
        after.len() - before.len()
    };

    // Of four pictures the picture and a view, of the held-out one the picture.
    assert_eq!(encodes(&|_| {}), 9);
    assert_eq!(encodes(&|_| {}), 0);
    // What comes behind the encoder changes nothing of what it says.
    assert_eq!(encodes(&|spec| spec.stages[0].predictor = 2e-3), 0);
    assert_eq!(encodes(&|spec| spec.average = 0.5), 0);

    assert_eq!(encodes(&|spec| spec.model.weights.clone_from(&weights[1])), 9);
    assert_eq!(encodes(&|spec| spec.model.input_size = Some(192)), 9);
    assert_eq!(encodes(&|spec| spec.model.precision = Precision::Bf16), 9);
    assert_eq!(encodes(&|spec| spec.views = 2), 4);
    let adapted = |blocks| EncoderLora { blocks, rank: 2 };
    assert_eq!(encodes(&|spec| spec.encoder = Some(adapted(2))), 9);
    assert_eq!(encodes(&|spec| spec.encoder = Some(adapted(4))), 9);
    assert_eq!(encodes(&|spec| spec.encoder = Some(adapted(4))), 0);

    // One pixel of a picture that is learned from.
    let held = std::fs::read_to_string(root.path().join("run-1/validation.txt")).unwrap();
    let name = (0..5).map(|i| format!("p{i}")).find(|name| !held.lines().any(|line| line == name)).unwrap();
    let file = data.join(format!("imgs/{name}.png"));
    let mut picture = image::open(&file).unwrap().to_luma8();
    let Luma([value]) = *picture.get_pixel(3, 3);
    picture.put_pixel(3, 3, Luma([value + 1]));
    picture.save(file).unwrap();
    assert_eq!(encodes(&|_| {}), 2);
}
