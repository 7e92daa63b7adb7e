# ruby client.rb FIRST NAME COUNT MOST PATH…: see tests/clients/senders.py
require 'json'
require 'stringio'

SIZE = 2500

def pieces(data)
  data.scan(/.{1,#{SIZE}}/m)
end

# syswrite may take a part, or be interrupted before it has taken any
def write_all(file, data)
  data = data.byteslice(file.syswrite(data)..) until data.empty?
rescue Errno::EINTR
  retry
end

WAYS = [
  ->(path, data) { File.open(path, 'w') { |f| f.sync = true; pieces(data).each { |piece| f.write(piece) } } },
  lambda do |path, data|
    # each piece by a thread of its own
    File.open(path, 'w') { |f| pieces(data).each { |piece| Thread.new { write_all(f, piece) }.value } }
  end,
  ->(path, data) { File.open(path, 'a') { |f| f.sync = true; pieces(data).each { |piece| f << piece } } },
  ->(path, data) { File.open(path, 'w') { |f| pieces(data).each { |piece| f.print(piece) } } },
  ->(path, data) { IO.copy_stream(StringIO.new(data), path) },
  ->(path, data) { File.write(path, data) },
  lambda do |path, data|
    File.open(path, 'w') do |f|
      pieces(data).each_slice(4) do |some|
        Process.wait(fork { exit!(some.each { |piece| write_all(f, piece) } && true) rescue exit!(false) })
        raise Errno::EINVAL unless $?.success?
      end
    end
  end
].freeze

Thread.report_on_exception = false
first, name, count, most, *paths = ARGV
$stdout.sync = true
paths.each_with_index.map do |path, number|
  way = WAYS[(first.to_i + number) % WAYS.size]
  Thread.new do
    count.to_i.times do |n|
      who = "#{name}-#{number}-#{n}"
      text = { files: { 'a.txt': { content: "#{who} " * (1 + n * 37 % most.to_i) } }, summary: { colour: 'red', who: who } }
      said = 'ok'
      begin
        way.call(path, text.to_json)
      rescue SystemCallError => e
        said = e.message
      end
      $stdout.write("#{who} #{said}\n")
    end
  end
end.each(&:join)
