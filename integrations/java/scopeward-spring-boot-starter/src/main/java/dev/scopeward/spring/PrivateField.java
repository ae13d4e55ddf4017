package dev.scopeward.spring;

import java.lang.reflect.Field;
import org.springframework.util.ReflectionUtils;

/**
 * Reads what an object of the server was given before, so that it is kept and not replaced: it has setters for these and no getters.
 *
 * <p>A version of the server without the field fails the start.
 */
final class PrivateField {
    private PrivateField() {}

    @SuppressWarnings("unchecked") // Each caller names the type that the setter of the same name takes.
    static <T> T read(Object owner, String name) {
        Field field = ReflectionUtils.findField(owner.getClass(), name);
        if (field == null) {
            throw new NotAskingException("this version of Spring Security has no `" + name + "` in " + owner.getClass().getName(),
                    "Use a version that the README of scopeward-spring-boot-starter names.");
        }
        ReflectionUtils.makeAccessible(field);
        return (T) ReflectionUtils.getField(field, owner);
    }
}
