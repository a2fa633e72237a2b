//! Throughput, CPU time and latency as bars, a row per engine. An SVG file, for which no font has to be installed.

use std::path::Path;

use plotters::prelude::{
    BLACK, Color, DrawingBackend, IntoFont, IntoTextStyle, RGBColor, Rectangle, SVGBackend, TextStyle, WHITE,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::{drawing::IntoDrawingArea, element::Text};

/// What is drawn of one engine.
pub(crate) struct Bars {
    pub(crate) name: String,
    /// Requests per second.
    pub(crate) iops: f64,
    /// Microseconds of CPU time per request; not a number where nobody knows.
    pub(crate) cpu_us: f64,
    /// Latency in microseconds: median, and what 99 of 100 requests did not exceed.
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

const ROW: i32 = 24;
const TITLE: i32 = 40;
/// A heading, and the space above it.
const HEADING: i32 = 44;
const WIDTH: i32 = 900;
/// Where bars begin: right of the names.
const LEFT: i32 = 210;
/// The longest bar; right of it is its value.
const LONGEST: i32 = 480;

const DARK: RGBColor = RGBColor(37, 99, 165);
const LIGHT: RGBColor = RGBColor(168, 200, 232);

/// One of the three pictures: a heading, and for each engine a value, and one that is drawn behind it.
struct Panel<'a> {
    heading: &'a str,
    value: fn(&Bars) -> f64,
    behind: Option<fn(&Bars) -> f64>,
    text: fn(&Bars) -> String,
}

const PANELS: [Panel<'_>; 3] = [
    Panel {
        heading: "Throughput: thousands of requests per second (more is better)",
        value: |bars| bars.iops,
        behind: None,
        text: |bars| format!("{:.1}", bars.iops / 1000.0),
    },
    Panel {
        heading: "CPU time: microseconds per request (less is better)",
        value: |bars| bars.cpu_us,
        behind: None,
        text: |bars| if bars.cpu_us.is_nan() { "unknown".to_string() } else { format!("{:.2}", bars.cpu_us) },
    },
    Panel {
        heading: "Latency: microseconds, median (dark) and 99th percentile (light; less is better)",
        value: |bars| bars.p50_us,
        behind: Some(|bars| bars.p99_us),
        text: |bars| format!("{:.1} / {:.1}", bars.p50_us, bars.p99_us),
    },
];

/// Draws it into the file, or says why not.
pub(crate) fn draw(path: &Path, title: &str, all: &[Bars]) -> Result<(), String> {
    let svg = svg(title, all)?;
    std::fs::write(path, svg).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

fn svg(title: &str, all: &[Bars]) -> Result<String, String> {
    let mut svg = String::new();
    let height = TITLE + PANELS.len() as i32 * (HEADING + all.len() as i32 * ROW) + ROW;
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH as u32, height as u32)).into_drawing_area();
        let drawn = || {
            area.fill(&WHITE)?;
            area.draw(&Text::new(title, (20, TITLE / 2), style(18, HPos::Left)))?;
            for (number, panel) in PANELS.iter().enumerate() {
                let top = TITLE + number as i32 * (HEADING + all.len() as i32 * ROW);
                draw_panel(&area, top, panel, all)?;
            }
            area.present()
        };
        drawn().map_err(|error| format!("cannot draw: {error}"))?;
    }
    Ok(svg)
}

type Area<'a, B> = plotters::drawing::DrawingArea<B, plotters::coord::Shift>;
type Drawn<B> = Result<(), plotters::drawing::DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

fn draw_panel<B: DrawingBackend>(area: &Area<'_, B>, top: i32, panel: &Panel<'_>, all: &[Bars]) -> Drawn<B> {
    area.draw(&Text::new(panel.heading, (20, top + HEADING / 2), style(14, HPos::Left)))?;
    let most = |bars: &Bars| panel.behind.map_or(0.0, |behind| behind(bars)).max((panel.value)(bars));
    // Above 0, so that nothing is divided by it.
    let scale = all.iter().map(most).fold(f64::MIN_POSITIVE, f64::max);
    for (number, bars) in all.iter().enumerate() {
        let middle = top + HEADING + number as i32 * ROW + ROW / 2;
        let end = |value: f64| LEFT + (value / scale * f64::from(LONGEST)).round() as i32;
        let bar = |value: f64, color: RGBColor| {
            let corners = [(LEFT, middle - ROW / 3), (end(value), middle + ROW / 3)];
            Rectangle::new(corners, color.filled())
        };
        if let Some(behind) = panel.behind {
            area.draw(&bar(behind(bars), LIGHT))?;
        }
        area.draw(&bar((panel.value)(bars), DARK))?;
        area.draw(&Text::new(bars.name.as_str(), (LEFT - 8, middle), style(13, HPos::Right)))?;
        area.draw(&Text::new((panel.text)(bars), (end(most(bars)) + 8, middle), style(13, HPos::Left)))?;
    }
    Ok(())
}

fn style(size: i32, side: HPos) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&BLACK).into_text_style(&(0, 0)).pos(Pos::new(side, VPos::Center))
}
