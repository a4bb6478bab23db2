//! E-mail addresses as names of accounts: one spelling each.

/// RFC 5321 section 4.5.3.1: a path has 256 bytes with its brackets, a local part 64.
const EMAIL_BYTES_MAX: usize = 254;
const LOCAL_BYTES_MAX: usize = 64;

/// The one spelling of an address: no white space around it, lower case. Local parts are compared without case, as every
/// large mailbox provider does; dots and `+tags` are left alone, since what they mean is the provider's affair.
/// ASCII only: letters that look alike would be accounts that look alike.
pub fn normalise(text: &str) -> Result<String, &'static str> {
    let email = text.trim().to_ascii_lowercase();
    if email.len() > EMAIL_BYTES_MAX {
        return Err("has at most 254 bytes");
    }
    let Some((local, domain)) = email.rsplit_once('@') else {
        return Err("must be of the form name@example.org");
    };
    let legal_local = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+/=?^_`{|}~-.".contains(&byte);
    let dots = local.starts_with('.') || local.ends_with('.') || local.contains("..");
    if local.is_empty() || local.len() > LOCAL_BYTES_MAX || dots || !local.bytes().all(legal_local) {
        return Err("must have letters, digits and usual marks before the @, all ASCII");
    }
    let legal_label = |label: &str| {
        let inner = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        (1..=63).contains(&label.len()) && inner && !label.starts_with('-') && !label.ends_with('-')
    };
    if !domain.contains('.') || !domain.split('.').all(legal_label) {
        return Err("must have a domain name after the @ (international ones as xn--…)");
    }
    Ok(email)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_spelling() {
        for same in ["ada@example.org", " Ada@Example.ORG\n", "ADA@EXAMPLE.ORG"] {
            assert_eq!(normalise(same).as_deref(), Ok("ada@example.org"), "{same:?}");
        }
        assert_eq!(normalise("a.da+films@mail.example.org").as_deref(), Ok("a.da+films@mail.example.org"));
    }

    #[test]
    fn what_is_no_address_or_could_be_taken_for_another_is_refused() {
        let long = format!("{}@example.org", "a".repeat(65));
        let longer = format!("a@{}org", "example.".repeat(40));
        for bad in [
            "",
            "ada",
            "@example.org",
            "ada@",
            "ada@localhost",
            "a da@example.org",
            "ada@exa mple.org",
            "ada@-a.org",
            "ada@a..org",
            ".ada@example.org",
            "a..da@example.org",
            "\u{430}da@example.org",
            "ada@ex\u{e4}mple.org",
            "ada@example.org\0",
            "a@b@example.org",
            "\"a\"@example.org",
            "ada@example.org,eve@example.org",
            &long,
            &longer,
        ] {
            assert!(normalise(bad).is_err(), "{bad:?}");
        }
    }
}
