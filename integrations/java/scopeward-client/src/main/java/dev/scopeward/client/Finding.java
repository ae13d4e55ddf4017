package dev.scopeward.client;

/**
 * One problem at one place of a policy file. Texts are empty where there is nothing to say.
 *
 * @param file the file
 * @param line from 1
 * @param column from 1
 * @param code stable, such as {@code UnknownKey}
 * @param severity {@code error} or {@code warning}
 * @param audience the audience that it is about
 * @param value the offending value as written
 * @param message what is wrong, for people
 * @param suggestion what would be right
 */
public record Finding(
        String file,
        long line,
        long column,
        String code,
        String severity,
        String audience,
        String value,
        String message,
        String suggestion) {}
