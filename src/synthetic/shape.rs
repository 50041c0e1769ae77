//! The parts: eight classes as signed-distance solids, standing on `z = 0` around the z axis.
//!
//! A [`Shape`] may lack one of its class's features (a tooth, a hole, a rib); each feature has a
//! bounding sphere outside which the solid is the intact one.

use glam::{Vec2, Vec3, Vec3Swizzles};

use super::geometry::{
    blended, carved, cuboid, extruded, extruded_round, hexagon, rectangle, rotated, sector, torus,
};

/// A product type that can be rendered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClassKind {
    /// A hex bolt with flange and rolled thread, standing on its head.
    Bolt,
    /// A spur gear with hub, keyway and lightening holes.
    Gear,
    /// A flanged bushing with four bolt holes.
    Bushing,
    /// An angle bracket with gusset and four holes.
    Bracket,
    /// A moulded plastic cap with grip ribs.
    Cap,
    /// A deep-groove ball bearing.
    Bearing,
    /// A cooling body of extruded aluminium: base plate, fins, four holes.
    HeatSink,
    /// A moulded terminal block with six screws.
    TerminalBlock,
}

impl ClassKind {
    /// Every class.
    pub const ALL: [Self; 8] = [
        Self::Bolt,
        Self::Gear,
        Self::Bushing,
        Self::Bracket,
        Self::Cap,
        Self::Bearing,
        Self::HeatSink,
        Self::TerminalBlock,
    ];

    /// The class's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bolt => "bolt",
            Self::Gear => "gear",
            Self::Bushing => "bushing",
            Self::Bracket => "bracket",
            Self::Cap => "cap",
            Self::Bearing => "bearing",
            Self::HeatSink => "heat-sink",
            Self::TerminalBlock => "terminal-block",
        }
    }

    /// Centre and radius of a sphere around the part.
    pub(crate) fn bounds(self) -> (Vec3, f32) {
        let (height, radius) = match self {
            Self::Bolt => (1.62, 1.06),
            Self::Gear => (0.46, 1.04),
            Self::Bushing => (0.98, 1.11),
            Self::Bracket => (1.16, 1.25),
            Self::Cap => (0.84, 1.05),
            Self::Bearing => (0.46, 1.04),
            Self::HeatSink => (0.62, 1.18),
            Self::TerminalBlock => (0.88, 1.10),
        };
        (Vec3::Z * (0.5 * height), radius)
    }

    /// How many features of this class can be missing.
    pub(crate) fn feature_count(self) -> usize {
        match self {
            Self::Bolt => 2,
            Self::Gear => GEAR_TEETH + GEAR_HOLES,
            Self::Bushing => BUSHING_HOLES,
            Self::Bracket => 5,
            Self::Cap => CAP_RIBS + 1,
            Self::Bearing => BEARING_BALLS,
            Self::HeatSink => SINK_FINS + SINK_HOLES.len(),
            Self::TerminalBlock => TERMINALS,
        }
    }

    /// Centre and radius of a sphere around a feature.
    pub(crate) fn feature_bounds(self, feature: usize) -> (Vec3, f32) {
        let ring = |radius: f32, number: usize, count: usize, phase: f32, z: f32| {
            let angle = (number as f32 + phase) * std::f32::consts::TAU / count as f32;
            Vec3::new(radius * angle.cos(), radius * angle.sin(), z)
        };
        match self {
            Self::Bolt if feature == 0 => (Vec3::Z * 1.19, 0.56),
            Self::Bolt => (Vec3::Z * 0.43, 0.74),
            Self::Gear if feature < GEAR_TEETH => (ring(0.91, feature, GEAR_TEETH, 0.0, 0.2), 0.3),
            Self::Gear => (ring(0.55, feature - GEAR_TEETH, GEAR_HOLES, 0.5, 0.2), 0.24),
            Self::Bushing => (ring(0.745, feature, BUSHING_HOLES, 0.5, 0.1), 0.22),
            Self::Bracket if feature == 4 => (Vec3::new(0.0, 0.12, 0.42), 0.62),
            Self::Bracket => (BRACKET_HOLES[feature], 0.26),
            Self::Cap if feature < CAP_RIBS => (ring(0.86, feature, CAP_RIBS, 0.0, 0.36), 0.46),
            Self::Cap => (Vec3::Z * 0.82, 0.36),
            Self::Bearing => (ring(BEARING_PITCH, feature, BEARING_BALLS, 0.0, 0.23), 0.24),
            Self::HeatSink if feature < SINK_FINS => {
                (Vec3::new(sink_fin_place(feature), 0.0, 0.36), 0.68)
            }
            Self::HeatSink => (SINK_HOLES[feature - SINK_FINS], 0.2),
            Self::TerminalBlock => (Vec3::new(terminal_place(feature), -0.08, 0.6), 0.22),
        }
    }
}

const GEAR_TEETH: usize = 18;
const GEAR_HOLES: usize = 6;
const BUSHING_HOLES: usize = 4;
const CAP_RIBS: usize = 20;
const BEARING_BALLS: usize = 9;
const BEARING_PITCH: f32 = 0.66;
const BEARING_BALL_RADIUS: f32 = 0.175;
const BRACKET_HOLES: [Vec3; 4] = [
    Vec3::new(-0.56, -0.18, 0.08),
    Vec3::new(0.56, -0.18, 0.08),
    Vec3::new(-0.56, 0.54, 0.72),
    Vec3::new(0.56, 0.54, 0.72),
];
const SINK_FINS: usize = 7;
const SINK_FIN_SPACING: f32 = 0.2;
const SINK_HOLES: [Vec3; 4] = [
    Vec3::new(-0.82, -0.44, 0.06),
    Vec3::new(0.82, -0.44, 0.06),
    Vec3::new(-0.82, 0.44, 0.06),
    Vec3::new(0.82, 0.44, 0.06),
];
const TERMINALS: usize = 6;
const TERMINAL_SPACING: f32 = 0.28;

/// Where on the x axis a fin of the heat sink stands.
fn sink_fin_place(number: usize) -> f32 {
    (number as f32 - 0.5 * (SINK_FINS - 1) as f32) * SINK_FIN_SPACING
}

/// Where on the x axis a screw of the terminal block stands.
fn terminal_place(number: usize) -> f32 {
    (number as f32 - 0.5 * (TERMINALS - 1) as f32) * TERMINAL_SPACING
}

/// The nearest place of a row, and its number.
fn nearest_place(x: f32, spacing: f32, count: usize, place: fn(usize) -> f32) -> (f32, usize) {
    let number = (x / spacing + 0.5 * (count - 1) as f32).round();
    let number = number.clamp(0.0, (count - 1) as f32) as usize;
    (x - place(number), number)
}

/// A part's solid, whole or lacking one feature.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) class: ClassKind,
    pub(crate) missing: Option<usize>,
}

impl Shape {
    /// The signed distance from `point` to the solid.
    pub(crate) fn distance(&self, point: Vec3) -> f32 {
        match self.class {
            ClassKind::Bolt => self.bolt(point),
            ClassKind::Gear => self.gear(point),
            ClassKind::Bushing => self.bushing(point),
            ClassKind::Bracket => self.bracket(point),
            ClassKind::Cap => self.cap(point),
            ClassKind::Bearing => self.bearing(point),
            ClassKind::HeatSink => self.heat_sink(point),
            ClassKind::TerminalBlock => self.terminal_block(point),
        }
    }

    /// The outward normal at a place on the surface.
    pub(crate) fn normal(&self, point: Vec3) -> Vec3 {
        gradient(point, |place| self.distance(place))
    }

    fn lacks(&self, feature: usize) -> bool {
        self.missing == Some(feature)
    }

    fn bolt(&self, point: Vec3) -> f32 {
        let radius = point.xy().length();
        let head = extruded_round(hexagon(point.xy(), 0.5), point.z, 0.0, 0.38, 0.025);
        // The chamfer that a hex head gets on a lathe.
        let head = head.max((radius - 0.55 - point.z) * 0.707);
        let flange = extruded_round(radius - 0.64, point.z, 0.37, 0.46, 0.02);
        let shank = self.bolt_shank(point, radius);
        let lower = if self.lacks(1) {
            head
        } else {
            blended(head, flange, 0.03)
        };
        blended(lower, shank, 0.06)
    }

    fn bolt_shank(&self, point: Vec3, radius: f32) -> f32 {
        const RADIUS: f32 = 0.27;
        const PITCH: f32 = 0.105;
        let tip = (radius + point.z - 1.76) * 0.707;
        let plain = extruded(radius - RADIUS, point.z, 0.3, 1.6).max(tip);
        let is_threaded = point.z > 0.74 && point.z < 1.66 && !self.lacks(0);
        if plain > 0.08 || !is_threaded {
            // The crests stand 0.02 above the plain shank.
            return if self.lacks(0) {
                plain
            } else {
                plain - 0.02 * f32::from(plain > 0.08)
            };
        }
        let turn = point.y.atan2(point.x) / std::f32::consts::TAU;
        let phase = (point.z / PITCH - turn).rem_euclid(1.0);
        let crest = (phase - 0.5).abs() * 4.0 - 1.0;
        let run_in = ((point.z - 0.74) * 8.0).min(1.0);
        (plain - 0.026 * crest * run_in) * 0.66
    }

    fn gear(&self, point: Vec3) -> f32 {
        let radius = point.xy().length();
        let root = radius - 0.8;
        let profile = if radius > 0.7 {
            root.min(self.gear_tooth(point.xy()))
        } else {
            root
        };
        let mut solid = extruded_round(profile, point.z, 0.02, 0.4, 0.015);
        let web = (radius - 0.55).abs() - 0.15;
        let recess = web.max(0.1 - (point.z - 0.21).abs());
        solid = carved(solid, recess, 0.04);
        let (hole, number) = sector(rotated(point.xy(), -std::f32::consts::PI / 6.0), GEAR_HOLES);
        if !self.lacks(GEAR_TEETH + number) {
            let hole = (hole - Vec2::new(0.55, 0.0)).length() - 0.1;
            solid = carved(solid, hole, 0.02);
        }
        let hub = extruded_round(radius - 0.36, point.z, 0.0, 0.46, 0.02);
        let keyway = rectangle(point.xy() - Vec2::new(0.0, 0.2), Vec2::new(0.05, 0.08));
        let bore = (radius - 0.2).min(keyway);
        carved(solid.min(hub), bore, 0.015)
    }

    fn gear_tooth(&self, point: Vec2) -> f32 {
        let (local, number) = sector(point, GEAR_TEETH);
        let tooth = |q: Vec2| {
            let width = 0.088 - 0.36 * (q.x - 0.88);
            rectangle(
                q - Vec2::new(0.88, 0.0),
                Vec2::new(0.12, width.clamp(0.03, 0.14)),
            ) * 0.92
        };
        if !self.lacks(number) {
            return tooth(local);
        }
        let step = std::f32::consts::TAU / GEAR_TEETH as f32;
        tooth(rotated(local, -step)).min(tooth(rotated(local, step)))
    }

    fn bushing(&self, point: Vec3) -> f32 {
        let radius = point.xy().length();
        let flange = extruded_round(radius - 0.96, point.z, 0.0, 0.2, 0.025);
        let body = extruded_round(radius - 0.53, point.z, 0.05, 0.96, 0.03);
        let mut solid = blended(flange, body, 0.12);
        let groove = Vec2::new(radius - 0.55, point.z - 0.66).length() - 0.05;
        solid = carved(solid, groove, 0.02);
        let (hole, number) = sector(
            rotated(point.xy(), -std::f32::consts::FRAC_PI_4),
            BUSHING_HOLES,
        );
        if !self.lacks(number) {
            let hole = (hole - Vec2::new(0.745, 0.0)).length() - 0.115;
            solid = carved(solid, hole, 0.03);
        }
        let bore = radius - 0.35 - 0.06 * ((point.z - 0.9) * 14.0).clamp(0.0, 1.0);
        carved(solid, bore * 0.8, 0.02)
    }

    fn bracket(&self, point: Vec3) -> f32 {
        let base = cuboid(
            point - Vec3::new(0.0, 0.0, 0.08),
            Vec3::new(0.92, 0.62, 0.08),
            0.03,
        );
        let upright = cuboid(
            point - Vec3::new(0.0, 0.54, 0.56),
            Vec3::new(0.92, 0.08, 0.56),
            0.03,
        );
        let mut solid = blended(base, upright, 0.14);
        if !self.lacks(4) {
            let slope = (point.z - 0.9 + (0.5 - point.y) * 0.92) * 0.736;
            let web = slope
                .max(point.x.abs() - 0.06)
                .max(point.y - 0.5)
                .max(0.1 - point.z);
            solid = blended(solid, web.max(-0.34 - point.y), 0.06);
        }
        for (number, center) in BRACKET_HOLES.iter().enumerate() {
            if self.lacks(number) {
                continue;
            }
            let offset = point - *center;
            let across = if number < 2 { offset.xy() } else { offset.xz() };
            let depth = if number < 2 { offset.z } else { offset.y };
            let tool = (across.length() - 0.14).max(depth.abs() - 0.15);
            solid = carved(solid, tool, 0.025);
        }
        let slot = rectangle(point.xz() - Vec2::new(0.0, 0.98), Vec2::new(0.16, 0.02)) - 0.04;
        carved(solid, slot.max(0.3 - point.y), 0.02)
    }

    fn cap(&self, point: Vec3) -> f32 {
        let radius = point.xy().length();
        let taper = 0.86 - 0.06 * point.z;
        let mut solid = extruded_round((radius - taper) * 0.998, point.z, 0.0, 0.8, 0.1);
        let (local, number) = sector(point.xy(), CAP_RIBS);
        if radius > 0.6 && !self.lacks(number) {
            let rib = rectangle(local - Vec2::new(taper, 0.0), Vec2::new(0.05, 0.03)) - 0.015;
            solid = blended(solid, extruded_round(rib, point.z, 0.04, 0.7, 0.03), 0.03);
        }
        let rim = extruded_round((radius - 0.56).abs() - 0.035, point.z, 0.7, 0.835, 0.02);
        solid = blended(solid, rim, 0.03);
        if !self.lacks(CAP_RIBS) {
            let bar = cuboid(point - Vec3::Z * 0.8, Vec3::new(0.3, 0.06, 0.045), 0.02);
            let cross = cuboid(point - Vec3::Z * 0.8, Vec3::new(0.06, 0.3, 0.045), 0.02);
            solid = blended(solid, bar.min(cross), 0.03);
        }
        solid
    }

    fn bearing(&self, point: Vec3) -> f32 {
        let radius = point.xy().length();
        let outer = extruded_round((radius - 0.895).abs() - 0.105, point.z, 0.0, 0.46, 0.03);
        let inner = extruded_round((radius - 0.45).abs() - 0.085, point.z, 0.0, 0.46, 0.03);
        let groove = torus(point, 0.23, BEARING_PITCH, 0.19);
        let rings = carved(outer.min(inner), groove, 0.01);
        let (local, number) = sector(point.xy(), BEARING_BALLS);
        let ball = |q: Vec2| {
            let center = Vec3::new(BEARING_PITCH, 0.0, 0.23);
            (Vec3::new(q.x, q.y, point.z) - center).length() - BEARING_BALL_RADIUS
        };
        let balls = if self.lacks(number) {
            let step = std::f32::consts::TAU / BEARING_BALLS as f32;
            ball(rotated(local, -step)).min(ball(rotated(local, step)))
        } else {
            ball(local)
        };
        rings.min(balls).min(self.bearing_cage(point, radius))
    }

    fn heat_sink(&self, point: Vec3) -> f32 {
        let mut solid = cuboid(point - Vec3::Z * 0.06, Vec3::new(0.96, 0.6, 0.06), 0.02);
        for (number, center) in SINK_HOLES.iter().enumerate() {
            if !self.lacks(SINK_FINS + number) {
                let hole = (point - *center).xy().length() - 0.09;
                solid = carved(solid, hole, 0.015);
            }
        }
        let (_, nearest) = nearest_place(point.x, SINK_FIN_SPACING, SINK_FINS, sink_fin_place);
        // A fin may be missing; then one of its neighbours is the nearest.
        for number in nearest.saturating_sub(1)..(nearest + 2).min(SINK_FINS) {
            if !self.lacks(number) {
                let center = Vec3::new(sink_fin_place(number), 0.0, 0.36);
                let fin = cuboid(point - center, Vec3::new(0.035, 0.58, 0.26), 0.015);
                solid = blended(solid, fin, 0.04);
            }
        }
        solid
    }

    fn terminal_block(&self, point: Vec3) -> f32 {
        let body = cuboid(point - Vec3::Z * 0.38, Vec3::new(0.92, 0.4, 0.38), 0.03);
        let ridge = cuboid(
            point - Vec3::new(0.0, 0.29, 0.78),
            Vec3::new(0.88, 0.09, 0.1),
            0.03,
        );
        let (x, number) = nearest_place(point.x, TERMINAL_SPACING, TERMINALS, terminal_place);
        let from_axis = Vec2::new(x, point.y + 0.08).length();
        let well = (from_axis - 0.11).max(0.48 - point.z);
        let opening = rectangle(Vec2::new(x, point.z - 0.24), Vec2::new(0.08, 0.09));
        let solid = carved(blended(body, ridge, 0.03), well, 0.015);
        let solid = carved(solid, opening.max(point.y + 0.15), 0.015);
        if self.lacks(number) {
            return solid;
        }
        solid.min(self.terminal_screw(point))
    }

    /// How far `point` is from the terminal block's nearest screw, for its material too.
    pub(crate) fn terminal_screw(&self, point: Vec3) -> f32 {
        let (x, number) = nearest_place(point.x, TERMINAL_SPACING, TERMINALS, terminal_place);
        let across = Vec2::new(x, point.y + 0.08);
        let head = extruded_round(across.length() - 0.092, point.z, 0.4, 0.68, 0.012);
        // No two slots point the same way.
        let slot = rectangle(rotated(across, 0.7 * number as f32), Vec2::new(0.014, 0.12));
        carved(head, slot.max(0.63 - point.z), 0.005)
    }

    pub(crate) fn bearing_cage(&self, point: Vec3, radius: f32) -> f32 {
        extruded_round(
            (radius - BEARING_PITCH).abs() - 0.06,
            point.z,
            0.16,
            0.3,
            0.02,
        )
    }

    /// How far `point` is from the bearing's nearest ball, for its material.
    pub(crate) fn bearing_ball(&self, point: Vec3) -> f32 {
        let (local, _) = sector(point.xy(), BEARING_BALLS);
        let center = Vec3::new(BEARING_PITCH, 0.0, 0.23);
        (Vec3::new(local.x, local.y, point.z) - center).length() - BEARING_BALL_RADIUS
    }
}

/// The normalised gradient of a distance, from four places around `point`.
pub(crate) fn gradient(point: Vec3, distance: impl Fn(Vec3) -> f32) -> Vec3 {
    const STEP: f32 = 0.0025;
    const CORNERS: [Vec3; 4] = [
        Vec3::new(1.0, -1.0, -1.0),
        Vec3::new(-1.0, -1.0, 1.0),
        Vec3::new(-1.0, 1.0, -1.0),
        Vec3::new(1.0, 1.0, 1.0),
    ];
    let mut sum = Vec3::ZERO;
    for corner in CORNERS {
        sum += corner * distance(point + corner * STEP);
    }
    sum.normalize_or(Vec3::Z)
}
