//! A QR code (ISO/IEC 18004) in the characters of a terminal, for a camera before the screen.
//!
//! Two rows of modules are one line of half blocks, so that a module is about as high as it is wide
//! if a character is twice as high as wide. A screen has no stains, so the lowest level of error
//! correction is enough, and it gives the largest modules.

use std::fmt;

use peerage_proto::api::{ApiError, ErrorCode};
use qrcode::{Color, EcLevel, QrCode};

/// The margin by which a reader finds the code, in modules.
const MARGIN: usize = 4;

/// Black on white, whatever colours the terminal has: not every reader knows a code in negative.
const BLACK_ON_WHITE: &str = "\x1b[30;107m";
const COLOURS_OF_BEFORE: &str = "\x1b[0m";

/// A QR code, as lines of text with their colours.
pub(super) struct Picture {
    code: QrCode,
}

impl Picture {
    /// The code of a text.
    ///
    /// # Errors
    /// That the text is longer than the 2,953 bytes of the largest code.
    pub(super) fn of(text: &str) -> Result<Self, ApiError> {
        let code = QrCode::with_error_correction_level(text, EcLevel::L);
        let code = code.map_err(|error| {
            let message = format!("{} characters make no QR code: {error}", text.len());
            ApiError::new(ErrorCode::Failed, message)
        })?;
        Ok(Self { code })
    }

    /// How many characters a line has.
    pub(super) fn columns(&self) -> usize {
        self.code.width() + 2 * MARGIN
    }

    /// How many lines there are.
    pub(super) fn rows(&self) -> usize {
        self.columns().div_ceil(2)
    }

    /// Whether the module is dark, counted from the corner of the margin.
    fn is_dark(&self, x: usize, y: usize) -> bool {
        let inside = |at: usize| at.checked_sub(MARGIN).filter(|at| *at < self.code.width());
        let dark = |(x, y)| self.code[(x, y)] == Color::Dark;
        inside(x).zip(inside(y)).is_some_and(dark)
    }
}

/// Ends without a line break.
impl fmt::Display for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in 0..self.rows() {
            let line_break = if row == 0 { "" } else { "\n" };
            write!(f, "{line_break}{BLACK_ON_WHITE}")?;
            for x in 0..self.columns() {
                f.write_str(match (self.is_dark(x, 2 * row), self.is_dark(x, 2 * row + 1)) {
                    (true, true) => "█",
                    (true, false) => "▀",
                    (false, true) => "▄",
                    (false, false) => " ",
                })?;
            }
            f.write_str(COLOURS_OF_BEFORE)?;
        }
        Ok(())
    }
}
