use super::defect::Defect;
use super::renderer::Studio;
use super::*;

const SIZE: u32 = 64;

fn part(class: ClassKind, seed: u64, defect: Option<DefectKind>) -> SyntheticPart {
    SyntheticPart {
        class,
        seed,
        defect,
    }
}

fn differing_pixels(first: &RenderedView, second: &RenderedView) -> Vec<usize> {
    let pairs = first
        .image
        .pixels
        .chunks(3)
        .zip(second.image.pixels.chunks(3));
    pairs
        .enumerate()
        .filter(|(_, (a, b))| a != b)
        .map(|(index, _)| index)
        .collect()
}

#[test]
fn a_seed_fixes_every_pixel() {
    let spec = part(ClassKind::Gear, 7, Some(DefectKind::Stain));
    assert_eq!(render(&spec, SIZE), render(&spec, SIZE));
}

#[test]
fn other_seeds_give_other_pictures() {
    let first = render(&part(ClassKind::Cap, 1, None), SIZE);
    let second = render(&part(ClassKind::Cap, 2, None), SIZE);
    for (first, second) in first.iter().zip(&second) {
        let changed = differing_pixels(first, second).len();
        assert!(
            changed > first.mask.len() / 2,
            "{}: {changed} pixels differ",
            first.view
        );
    }
}

#[test]
fn intact_parts_have_empty_masks_and_five_named_views() {
    for class in ClassKind::ALL {
        let views = render(&part(class, 3, None), 48);
        let names: Vec<&str> = views.iter().map(|view| view.view.as_str()).collect();
        assert_eq!(names, ["top", "left", "right", "front", "back"]);
        assert!(views.iter().all(|view| view.mask_pixels() == 0));
    }
}

#[test]
fn every_kind_shows_on_every_class() {
    let needed = (40.0 * (SIZE as f32 / 192.0).powi(2)) as usize;
    for class in ClassKind::ALL {
        for kind in DefectKind::ALL {
            let views = render(&part(class, 11, Some(kind)), SIZE);
            let most = views.iter().map(RenderedView::mask_pixels).max().unwrap();
            assert!(
                most >= needed,
                "{} on {}: {most} pixels",
                kind.as_str(),
                class.as_str()
            );
        }
    }
}

#[test]
fn outside_the_mask_only_the_shade_of_the_defect_differs() {
    for (class, kind) in [
        (ClassKind::Bracket, DefectKind::Scratch),
        (ClassKind::Bearing, DefectKind::MissingFeature),
        (ClassKind::Bushing, DefectKind::ForeignBody),
        (ClassKind::Cap, DefectKind::Dent),
    ] {
        let spec = part(class, 5, Some(kind));
        let (altered, _) = Studio::new(&spec, SIZE).place(kind);
        let intact = render(&part(class, 5, None), SIZE);
        for (with, without) in render(&spec, SIZE).iter().zip(&intact) {
            let outside: Vec<usize> = differing_pixels(with, without)
                .into_iter()
                .filter(|&index| !with.mask[index])
                .collect();
            let reach = projected_reach(&altered.defect);
            assert!(
                outside.len() <= reach,
                "{} {}: {} pixels outside the mask differ",
                kind.as_str(),
                with.view,
                outside.len()
            );
            for index in outside {
                let shaded = |view: &RenderedView| i32::from(view.image.pixels[index * 3 + 1]);
                assert!((shaded(with) - shaded(without)).abs() < 130, "not a shade");
            }
        }
    }
}

/// How many pixels the sphere around a defect can cover at most.
fn projected_reach(defect: &Defect) -> usize {
    let radius_pixels = (defect.bounds().1 / 1.2 * SIZE as f32 / 2.0) + 3.0;
    (std::f32::consts::PI * radius_pixels * radius_pixels) as usize
}

#[test]
fn a_stain_leaves_everything_outside_its_mask_alone() {
    let intact = render(&part(ClassKind::Bolt, 9, None), SIZE);
    let stained = render(&part(ClassKind::Bolt, 9, Some(DefectKind::Stain)), SIZE);
    for (with, without) in stained.iter().zip(&intact) {
        assert!(
            differing_pixels(with, without)
                .iter()
                .all(|&index| with.mask[index])
        );
    }
}

#[test]
fn a_defect_on_one_side_is_hidden_from_the_opposite_camera() {
    let mut hidden = 0;
    for class in ClassKind::ALL {
        for seed in 0..6 {
            let spec = part(class, seed, Some(DefectKind::Stain));
            let counts: Vec<usize> = render(&spec, 64)
                .iter()
                .map(RenderedView::mask_pixels)
                .collect();
            for (near, far) in [(1, 2), (2, 1), (3, 4), (4, 3)] {
                hidden += usize::from(counts[near] > 20 && counts[far] == 0);
            }
        }
    }
    assert!(
        hidden >= 4,
        "only {hidden} stains are hidden from the opposite camera"
    );
}

#[test]
fn held_out_kinds_are_not_development_kinds() {
    for kind in DefectKind::ALL {
        let is_held_out = DefectKind::HELD_OUT.contains(&kind);
        assert_ne!(is_held_out, DefectKind::DEVELOPMENT.contains(&kind));
    }
}
