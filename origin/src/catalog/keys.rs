//! Surrogate keys: one function per kind of key, and one that says which keys a change of a title purges.
use crate::catalog::model::{Title, slug};
use kv_schemas::SurrogateKey;

fn key(text: String) -> Option<SurrogateKey> {
    SurrogateKey::new(text).ok()
}

/// Every document that shows the title, and its own, which says 404 before it exists.
pub fn title(id: &str) -> Option<SurrogateKey> {
    key(format!("title:{id}"))
}

pub fn rail(id: &str) -> Option<SurrogateKey> {
    key(format!("rail:{id}"))
}

/// The home page itself: which rails it has, in which order.
pub fn home() -> Option<SurrogateKey> {
    key("home".into())
}

/// Every page of the unfiltered catalogue.
pub fn catalog() -> Option<SurrogateKey> {
    key("catalog".into())
}

/// Every page of the catalogue filtered by this genre.
pub fn genre(slug: &str) -> Option<SurrogateKey> {
    key(format!("genre:{slug}"))
}

/// The list of genres with their counts.
pub fn genres() -> Option<SurrogateKey> {
    key("genres".into())
}

/// What a change of a title purges: each page that shows it, and each list whose members or order change.
///
/// `rails` are the rails that name the title, shown or not.
pub fn of_change(before: Option<&Title>, after: Option<&Title>, rails: &[String]) -> Vec<SurrogateKey> {
    let visible = |title: Option<&Title>| title.is_some_and(|title| title.visible);
    let genres_of = |title: Option<&Title>| -> Vec<String> {
        let shown = title.filter(|title| title.visible);
        shown.map(|title| title.input.genres.iter().map(|name| slug(name)).collect()).unwrap_or_default()
    };
    let id = after.or(before).map(|title_| title_.id.as_str()).unwrap_or_default();
    let mut keys = vec![title(id)];
    let appears = visible(before) != visible(after);
    let moves = before.map(|t| &t.input.sort_name) != after.map(|t| &t.input.sort_name);
    let (old, new) = (genres_of(before), genres_of(after));
    if appears || (moves && visible(after)) {
        keys.push(catalog());
        keys.extend(old.iter().chain(&new).map(|name| genre(name)));
    }
    if appears {
        keys.extend(rails.iter().map(|id| rail(id)));
    }
    let changed = old.iter().filter(|name| !new.contains(name)).chain(new.iter().filter(|name| !old.contains(name)));
    let changed: Vec<_> = changed.collect();
    if appears || !changed.is_empty() {
        keys.push(genres());
        keys.extend(changed.into_iter().map(|name| genre(name)));
    }
    let mut keys: Vec<_> = keys.into_iter().flatten().collect();
    keys.sort();
    keys.dedup();
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::model::TitleInput;

    fn title_with(genres: &[&str], published: bool, sort_name: &str) -> Title {
        let input = TitleInput {
            name: "Heat".into(),
            sort_name: sort_name.into(),
            year: None,
            release_date: None,
            synopsis: None,
            maturity: None,
            runtime_min: None,
            rating: None,
            votes: None,
            distributor: None,
            genres: genres.iter().map(|g| g.to_string()).collect(),
            people: vec![],
            published,
            available_from: None,
            available_until: None,
        };
        Title { id: "heat".into(), version: 1, input, visible: published, created_at_ms: 0, updated_at_ms: 0 }
    }

    fn keys(before: Option<&Title>, after: Option<&Title>) -> String {
        let keys = of_change(before, after, &["top".into()]);
        keys.iter().map(|key| key.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn an_edit_purges_where_the_title_is_shown_and_no_list_it_stays_in() {
        let a = title_with(&["Drama"], true, "heat");
        assert_eq!(keys(Some(&a), Some(&a)), "title:heat");
    }

    #[test]
    fn appearing_and_vanishing_purge_every_list_and_rail() {
        let a = title_with(&["Drama"], true, "heat");
        let all = "catalog genre:drama genres rail:top title:heat";
        assert_eq!(keys(None, Some(&a)), all);
        assert_eq!(keys(Some(&a), None), all);
        assert_eq!(keys(Some(&title_with(&["Drama"], false, "heat")), Some(&a)), all);
    }

    #[test]
    fn a_change_of_genre_purges_the_lists_it_leaves_and_joins() {
        let (a, b) = (title_with(&["Drama", "War"], true, "heat"), title_with(&["War", "Crime"], true, "heat"));
        assert_eq!(keys(Some(&a), Some(&b)), "genre:crime genre:drama genres title:heat");
    }

    #[test]
    fn a_new_place_in_the_order_purges_the_lists_it_moves_in() {
        let (a, b) = (title_with(&["Drama"], true, "heat"), title_with(&["Drama"], true, "zeat"));
        assert_eq!(keys(Some(&a), Some(&b)), "catalog genre:drama title:heat");
    }

    #[test]
    fn a_draft_purges_nothing_but_its_own_absence() {
        let a = title_with(&["Drama"], false, "heat");
        assert_eq!(keys(None, Some(&a)), "title:heat");
    }
}
