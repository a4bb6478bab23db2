//! What a start makes of the database it finds: one of an older release, one that another process is at work on.
mod common;

use common::Database;
use origin::store::Store;

/// 500 texts of 140 words each, all of them known to searches but one, and what is derived as an older release left it.
async fn fill_richly(database: &Database) {
    // Their titles play no part.
    let sqlite = "PRAGMA foreign_keys = OFF;
        WITH RECURSIVE text (t) AS (SELECT 1 UNION ALL SELECT t + 1 FROM text WHERE t < 500),
          place (p) AS (SELECT 1 UNION ALL SELECT p + 1 FROM place WHERE p < 140)
        INSERT INTO search_word (form, word) SELECT 'w' || (1000 * t + p), 'w' || (1000 * t + p) FROM text, place;
        INSERT INTO title_text (n, title_id, words)
          SELECT CAST(substr(word, 2) AS INTEGER) / 1000, CAST(substr(word, 2) AS INTEGER) / 1000, group_concat(word, ' ')
            FROM search_word GROUP BY 1;";
    let postgres = "ALTER TABLE title_text DROP CONSTRAINT title_text_title_id_fkey;
        INSERT INTO search_word (form, word)
          SELECT 'w' || (1000 * t + p), 'w' || (1000 * t + p) FROM generate_series(1, 500) t, generate_series(1, 140) p;
        INSERT INTO title_text (n, title_id, words)
          SELECT substr(word, 2)::bigint / 1000, substr(word, 2)::bigint / 1000, string_agg(word, ' ')
            FROM search_word GROUP BY 1, 2;";
    let both = "DELETE FROM search_word WHERE word = 'w500140'; UPDATE derived SET form = 2";
    database.sql(&format!("{sqlite} {both}"), &format!("{postgres} {both}")).await;
}

#[tokio::test]
async fn texts_of_any_number_of_words_are_made_anew_for_a_new_release() {
    let database = Database::fresh();
    Store::connect(&database.settings).await.unwrap().close().await;
    fill_richly(&database).await;
    assert_eq!(database.count("search_word WHERE word = 'w500140'").await, 0);
    Store::connect(&database.settings).await.unwrap().close().await;
    assert!(database.count("search_word WHERE word = 'w500140'").await > 1);
}
