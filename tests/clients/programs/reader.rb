# ruby reader.rb GIT_DIR: for each line, the name of a reference, what that is: see tests/clients/test_git_readers.py
require 'rugged'

$stdout.sync = true
$stdin.each_line(chomp: true) do |name|
  repository = Rugged::Repository.new(ARGV[0])
  commit = repository.references[name].target
  puts "#{commit.message.to_i} #{repository.lookup(commit.tree.path('files/a.txt')[:oid]).content}"
end
