package dev.scopeward.client;

/** What a question is about, as far as the errors to send differ by it. */
enum QuestionKind {
    REGISTRATION,
    AUTHORIZE,
    TOKEN,
    OTHER
}
