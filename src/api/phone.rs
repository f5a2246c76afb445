//! Phone numbers, the names of logins.

use crate::model::Refusal;
use crate::protocol::json::read::bad_request;

/// Digits of a number: E.164 allows 15, private plans more; no number has fewer than three.
const DIGITS: std::ops::RangeInclusive<usize> = 3..=20;

/// A phone number in its one form: `+` and digits. Spaces and the visual separators of RFC 3966 section 5.1.1
/// (`-`, `.`, parentheses) are dropped, so that one number is one login however the user typed it.
///
/// # Errors
/// `bad_request`; the message does not repeat the number.
pub fn parse_phone(text: &str) -> Result<Box<str>, Refusal> {
    let refused = || bad_request("phone must be + and 3 to 20 digits, with the country's code");
    let digits = text.trim_start().strip_prefix('+').ok_or_else(refused)?;
    let mut phone = String::from("+");
    for character in digits.chars() {
        match character {
            '0'..='9' if phone.len() <= *DIGITS.end() => phone.push(character),
            ' ' | '-' | '.' | '(' | ')' => {}
            _ => return Err(refused()),
        }
    }
    if DIGITS.contains(&(phone.len() - 1)) { Ok(phone.into()) } else { Err(refused()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_has_one_form() {
        let check = |text: &str, expect: Option<&str>| {
            assert_eq!(parse_phone(text).ok().as_deref(), expect, "{text:?}");
        };
        check("+15551234567", Some("+15551234567"));
        check(" +1 (555) 123-45.67 ", Some("+15551234567"));
        check("+123", Some("+123"));
        check("+12345678901234567890", Some("+12345678901234567890"));
        for text in ["", "+", "+12", "+123456789012345678901", "15551234567", "++1555", "+1555a", "+١٢٣", "+1 555\n", "+1;ext=5"]
        {
            check(text, None);
        }
    }
}
