package dev.scopeward.client;

import com.google.gson.JsonObject;
import com.google.gson.JsonParseException;
import com.google.gson.JsonParser;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;

/** Keeps the position in a file, in the form of {@code scopeward audit tail --cursor-file}. */
public final class FileCursor implements AuditCursor {
    private final Path path;

    /**
     * Names the file, which need not exist.
     *
     * @param path its folder must exist
     */
    public FileCursor(Path path) {
        this.path = path;
    }

    /**
     * Reads the file.
     *
     * @return null if it does not exist
     * @throws IllegalStateException if it is not a cursor: starting from the beginning would hide that
     * @throws UncheckedIOException if it cannot be read
     */
    @Override
    public AuditPosition load() {
        try {
            JsonObject cursor = JsonParser.parseString(Files.readString(path)).getAsJsonObject();
            return new AuditPosition(cursor.get("log_id").getAsString(), cursor.get("sequence").getAsLong());
        } catch (NoSuchFileException absent) {
            return null;
        } catch (IOException error) {
            throw new UncheckedIOException("could not read the cursor " + path, error);
        } catch (JsonParseException | IllegalStateException | NullPointerException | NumberFormatException error) {
            throw new IllegalStateException(path + " is not a cursor: " + error.getMessage(), error);
        }
    }

    /**
     * Replaces the file in one step: a new file, synced, renamed over the old one.
     *
     * @param position the place to keep
     * @throws UncheckedIOException if it cannot be written
     */
    @Override
    public void save(AuditPosition position) {
        JsonObject cursor = new JsonObject();
        cursor.addProperty("log_id", position.logId());
        cursor.addProperty("sequence", position.sequence());
        Path fresh = path.resolveSibling(path.getFileName() + ".new");
        try {
            // A channel would be closed, and the position lost, by the interrupt that ends a reader.
            try (FileOutputStream file = new FileOutputStream(fresh.toFile())) {
                file.write(cursor.toString().getBytes(StandardCharsets.UTF_8));
                file.getFD().sync();
            }
            Files.move(fresh, path, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
        } catch (IOException error) {
            throw new UncheckedIOException("could not write the cursor " + path, error);
        }
    }
}
