package dev.scopeward.client;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.io.IOException;
import java.lang.reflect.Executable;
import java.lang.reflect.Field;
import java.lang.reflect.Modifier;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;

/** What users may call, as kept in {@code api.txt}. After a wanted change: {@code API_BLESS=1 mvn test -Dtest=ApiTest}. */
class ApiTest {
    private static final Path KEPT = Path.of("api.txt");
    private static final Path CLASSES = Path.of("target/classes/dev/scopeward/client");

    @Test
    void the_public_api_is_what_was_kept() throws IOException {
        String api = describe();
        if ("1".equals(System.getenv("API_BLESS"))) {
            Files.writeString(KEPT, api);
        }
        assertEquals(Files.readString(KEPT), api);
    }

    private static String describe() throws IOException {
        try (Stream<Path> files = Files.list(CLASSES)) {
            List<String> names = files.map(file -> file.getFileName().toString())
                    .filter(name -> name.endsWith(".class") && !name.equals("package-info.class"))
                    .map(name -> "dev.scopeward.client." + name.substring(0, name.length() - ".class".length()))
                    .sorted()
                    .toList();
            return names.stream().map(ApiTest::load).filter(ApiTest::isPublic).map(ApiTest::describe).collect(Collectors.joining("\n"));
        }
    }

    private static Class<?> load(String name) {
        try {
            return Class.forName(name);
        } catch (ClassNotFoundException error) {
            throw new IllegalStateException(error);
        }
    }

    private static boolean isPublic(Class<?> type) {
        return Modifier.isPublic(type.getModifiers()) && (type.getDeclaringClass() == null || isPublic(type.getDeclaringClass()));
    }

    private static String describe(Class<?> type) {
        Stream<String> fields = Arrays.stream(type.getDeclaredFields())
                .filter(field -> Modifier.isPublic(field.getModifiers())).map(Field::toGenericString);
        Stream<String> members = Stream.concat(Arrays.stream(type.getDeclaredConstructors()), Arrays.stream(type.getDeclaredMethods()))
                .filter(member -> Modifier.isPublic(member.getModifiers()) && !member.isSynthetic())
                .map(Executable::toGenericString);
        return Stream.concat(Stream.of(type.toGenericString()), Stream.concat(fields, members)
                .map(member -> "    " + member.replace("dev.scopeward.client.", "")).sorted()).collect(Collectors.joining("\n")) + "\n";
    }
}
