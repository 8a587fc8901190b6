//! The picture before the network sees it: resized to the byte, scaled to its own range, padded with zeros.

use sonomask::segment::preprocess::{input_tensor, scaled_rgb};
use sonomask::segment::resize::resize_area;
use tch::{Kind, Tensor};

use super::{IMAGES, bytes, fixture, get, placement, relative_error, rgb};

#[test]
fn parity_lite_medsam_preprocess() {
    for name in IMAGES {
        let file = fixture(name);
        let image = rgb(&file, "image");
        let theirs = rgb(&file, "resized");
        let placement = placement(&image);
        assert_eq!(placement.scaled, (theirs.width, theirs.height));
        let ours = scaled_rgb(&image, &placement);
        let wrong = ours.iter().zip(&theirs.data).filter(|(a, b)| a != b).count();
        println!("{name}: {wrong} of {} bytes differ from OpenCV's", ours.len());
        assert_eq!(wrong, 0, "{name}");

        let input = input_tensor(&ours, &placement).unwrap();
        let (h, w) = (theirs.height as i64, theirs.width as i64);
        let low = f64::from(*theirs.data.iter().min().unwrap());
        let high = f64::from(*theirs.data.iter().max().unwrap());
        let pixels =
            Tensor::from_slice(&theirs.data).view([h, w, 3]).permute([2, 0, 1]).to_kind(Kind::Double);
        let expected = ((pixels - low) / (high - low)).to_kind(Kind::Float);
        assert_eq!(
            relative_error(
                &format!("{name} input"),
                &input.get(0).narrow(1, 0, h).narrow(2, 0, w),
                &expected
            ),
            0.0
        );
        let inside = f64::try_from(expected.sum(Kind::Double)).unwrap();
        assert_eq!(
            f64::try_from(input.sum(Kind::Double)).unwrap(),
            inside,
            "{name}: the padding is not zero"
        );
    }
}

#[test]
fn parity_resize_inter_area() {
    let file = fixture("resize");
    let cases =
        ["twice", "five_times", "fraction", "just_smaller", "one_axis", "enlarge", "enlarge_twice", "same"];
    for name in cases {
        for channels in [1, 3] {
            let (src, dst) = (
                get(&file, &format!("{name}.{channels}.src")),
                get(&file, &format!("{name}.{channels}.dst")),
            );
            let size = |t: &Tensor| t.size3().map(|(h, w, _)| (w as usize, h as usize)).unwrap();
            let resize = if channels == 1 { resize_area::<1> } else { resize_area::<3> };
            let (ours, theirs) = (resize(&bytes(&src), size(&src), size(&dst)), bytes(&dst));
            let wrong = ours.iter().zip(&theirs).filter(|(a, b)| a != b).count();
            let most = ours.iter().zip(&theirs).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
            println!("{name} x{channels}: {wrong} of {} bytes differ, at most by {most}", theirs.len());
            assert_eq!((ours.len(), wrong), (theirs.len(), 0), "{name} x{channels}");
        }
    }
}
