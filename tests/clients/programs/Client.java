// java Client FIRST NAME COUNT MOST PATH…: see tests/clients/senders.py
import java.io.BufferedWriter;
import java.io.FileOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.AsynchronousFileChannel;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;

public class Client {
    static final int SIZE = 3500;
    // writes pieces of all messages, each by whichever thread is free
    static final ExecutorService POOL = Executors.newFixedThreadPool(6);

    interface Way { void send(Path path, byte[] data) throws IOException, InterruptedException, ExecutionException; }

    static void pooled(Path path, byte[] data) throws IOException, InterruptedException, ExecutionException {
        try (FileOutputStream out = new FileOutputStream(path.toFile())) {
            for (int at = 0; at < data.length; at += SIZE) {
                final int from = at;
                POOL.submit(() -> { out.write(data, from, Math.min(SIZE, data.length - from)); return 0; }).get();
            }
        }
    }

    static void asynchronous(Path path, byte[] data) throws IOException, InterruptedException, ExecutionException {
        try (AsynchronousFileChannel channel = AsynchronousFileChannel.open(path, StandardOpenOption.WRITE)) {
            for (int at = 0; at < data.length;)
                at += channel.write(ByteBuffer.wrap(data, at, Math.min(SIZE, data.length - at)), at).get();
        }
    }

    static void channel(Path path, byte[] data) throws IOException {
        try (FileChannel channel = FileChannel.open(path, StandardOpenOption.WRITE, StandardOpenOption.APPEND)) {
            for (int at = 0; at < data.length;)
                at += channel.write(ByteBuffer.wrap(data, at, Math.min(SIZE, data.length - at)));
        }
    }

    static void buffered(Path path, byte[] data) throws IOException {
        try (BufferedWriter out = Files.newBufferedWriter(path)) { out.write(new String(data)); }
    }

    static final List<Way> WAYS = Arrays.asList(
        Client::pooled, Client::asynchronous, Client::channel, Client::buffered, Files::write);

    static void sender(Way way, String name, Path path, int count, int most) {
        for (int n = 0; n < count; n++) {
            String who = name + "-" + n, said = "ok";
            String content = (who + " ").repeat(1 + n * 37 % most);
            String text = "{\"files\":{\"a.txt\":{\"content\":\"" + content + "\"}},"
                + "\"summary\":{\"colour\":\"red\",\"who\":\"" + who + "\"}}";
            try {
                way.send(path, text.getBytes());
            } catch (IOException | InterruptedException | ExecutionException error) {
                said = error.getMessage();
            }
            System.out.println(who + " " + said);
        }
    }

    public static void main(String[] words) throws InterruptedException {
        int senders = words.length - 4;
        ExecutorService threads = Executors.newFixedThreadPool(senders);
        for (int number = 0; number < senders; number++) {
            Way way = WAYS.get((Integer.parseInt(words[0]) + number) % WAYS.size());
            String name = words[1] + "-" + number;
            Path path = Path.of(words[4 + number]);
            threads.submit(() -> sender(way, name, path, Integer.parseInt(words[2]), Integer.parseInt(words[3])));
        }
        threads.shutdown();
        threads.awaitTermination(1, TimeUnit.DAYS);
        POOL.shutdown();
    }
}
